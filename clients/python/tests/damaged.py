"""A file that begins as an image, which Pillow finds out only while it decodes it."""

import io

import numpy as np
import PIL.Image


def damaged_png() -> bytes:
    """The name of a chunk behind the first of the pixels is none: Pillow raises a `SyntaxError`."""
    pixels = np.random.default_rng(3).integers(0, 256, (300, 300, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    first, second, rest = file.getvalue().split(b"IDAT", 2)
    return first + b"IDAT" + second + b"\x00\x01\x02\x03" + rest
