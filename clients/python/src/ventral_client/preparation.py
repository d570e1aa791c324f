"""Brings Pillow images to a network's input size as the server does, for tools that stack images before they send them.

What comes out is still pixels; the server subtracts the mean and divides by the deviation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import InvalidRequest, MissingPackage
from .models import Model
from .options import Preprocessing
from .tensors import Array

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


def fit(image: PillowImage, model: Model, preprocessing: Preprocessing = "model") -> Array:
    """An image as uint8 pixels of the network's input size, `[C, H, W]`: what the server makes of the file.

    Where the image has another size, single pixels are rounded differently, by 1 of 255.

    Raises:
        InvalidRequest: Where the preprocessing is none.
    """
    if preprocessing == "none":
        raise InvalidRequest(
            "preprocessing='none' leaves images as they are: pass float32 arrays of the input"
        )
    try:
        from PIL.Image import Resampling
    except ImportError as error:
        raise MissingPackage("Pillow", "images", "bringing images to a network's input size") from error
    channels, height, width = model.input_shape
    image = image.convert("RGB" if channels == 3 else "L")
    size = (width, height)
    resize = model.preprocessing.get("resize", {})
    if preprocessing == "model" and resize.get("kind") == "short-side":
        size = _short_side(image.size, resize["size"])
    if image.size != size:
        image = image.resize(size, Resampling.BILINEAR)
    # Halves go to the even neighbour, as in torchvision's centre crop.
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(height, width, channels), -1, 0))


def _short_side(size: tuple[int, int], wanted: int) -> tuple[int, int]:
    """The shorter side becomes `wanted`, the longer one in proportion, rounded down."""
    width, height = size
    if width <= height:
        return wanted, wanted * height // width
    return wanted * width // height, wanted
