"""Stimuli as Brain-Score's `load_preprocess_images` prepares them, up to the normalisation: this is the server's, so that
8 bits a channel are sent instead of 32. Microsaccades shift images by parts of pixels and need the normalised floats.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import overload

import numpy as np

from ..errors import UnreadableStimulus
from ..images import decoding, problem_of
from ..models import Model
from ..tensors import Array
from .package import brainscore

#: Images that are read ahead of what is sent.
_AHEAD = 32

#: Modes of Pillow's whose values aren't 8 bits a channel.
_NOT_8_BITS = ("I", "F")


@dataclass(frozen=True)
class Preparation:
    """How images become pixels of a network's input size."""

    shape: tuple[int, ...]
    """`(C, H, W)` of the network's input."""
    mean: tuple[float, ...]
    """Per channel, of values in 0..=1."""
    std: tuple[float, ...]
    """Per channel, of values in 0..=1."""

    @classmethod
    def of(cls, model: Model) -> Preparation:
        """What a model takes, normalised as in its training."""
        described = model.preprocessing
        return cls(model.input_shape, tuple(described["mean"]), tuple(described["std"]))

    @decoding()
    def pixels(self, path: str) -> Array:
        """An image file as pixels, uint8 `[C, H, W]`: the whole image, resized as Pillow does it, without a crop.

        Raises:
            OSError, ValueError: Where it can't be read.
        """
        # Brain-Score's own function decides what becomes of grey, transparent and palletised images.
        image = brainscore("model_helpers.activations.pytorch").load_image(path)
        if image.mode.startswith(_NOT_8_BITS):
            raise ValueError(f"its mode {image.mode} hasn't 8 bits a channel: convert it to RGB")
        channels, height, width = self.shape
        if channels == 1:
            image = image.convert("L")
        if image.size != (width, height):
            from PIL.Image import Resampling

            image = image.resize((width, height), Resampling.BILINEAR)
        if channels == 3 and image.mode != "RGB":
            image = image.convert("RGB")
        values: Array = np.atleast_3d(np.asarray(image, np.uint8))
        return np.ascontiguousarray(np.moveaxis(values, -1, 0))

    def normalised(self, pixels: Array) -> Array:
        """The network's input, float32, of pixels `[…, C, H, W]`; in torchvision's order of operations."""
        mean, std = (
            np.array(values, np.float32)[:, np.newaxis, np.newaxis] for values in (self.mean, self.std)
        )
        normalised: Array = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return normalised


def prepared(preparation: Preparation, paths: Sequence[str]) -> Iterator[Array]:
    """The pixels of files, in their order, read and resized by several threads while others are computed.

    Raises:
        UnreadableStimulus: The first file that can't be read.
    """
    waiting: deque[Future[Array]] = deque()
    following = iter(paths)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "ventral-stimuli") as pool:
        try:
            for position, path in enumerate(paths):
                while len(waiting) < _AHEAD and (ahead := next(following, None)) is not None:
                    waiting.append(pool.submit(preparation.pixels, ahead))
                try:
                    yield waiting.popleft().result()
                except (OSError, ValueError) as error:
                    raise unreadable(position, path, error) from error
        finally:
            for future in waiting:
                future.cancel()


def unreadable(position: int, path: str, error: OSError | ValueError) -> UnreadableStimulus:
    """What to do about a file that can't be read."""
    return UnreadableStimulus(
        position,
        path,
        f"{problem_of(error)}; replace the file, or leave it out, and run this again",
    )


class PixelSequence(Sequence[Array]):
    """The pixels of files, read when they are asked for: for calls that want a sequence and would hold all of them."""

    def __init__(self, preparation: Preparation, paths: Iterable[str]) -> None:
        """Reads nothing."""
        self._preparation = preparation
        self._paths = list(paths)

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Array: ...

    @overload
    def __getitem__(self, index: slice) -> PixelSequence: ...

    def __getitem__(self, index: int | slice) -> Array | PixelSequence:
        """One image, or a part of the sequence."""
        if isinstance(index, slice):
            return PixelSequence(self._preparation, self._paths[index])
        path = self._paths[index]
        try:
            return self._preparation.pixels(path)
        except (OSError, ValueError) as error:
            raise unreadable(index, path, error) from error
