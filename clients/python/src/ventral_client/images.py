"""Images in every form that users have them in, as what is sent: encoded files, or arrays."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union, cast

import numpy as np

from .errors import InvalidRequest, MissingPackage, UnreadableStimulus
from .tensors import Array

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

#: One image: a path, a file's bytes, a Pillow image, a NumPy array or a torch tensor.
Image: TypeAlias = Union[str, "os.PathLike[str]", bytes, "PillowImage", Array, Any]

#: Images: an iterable of them, an array or tensor with one more dimension, or a single one.
Images: TypeAlias = Iterable[Image] | Image

#: Modes that PNG files and the server know.
_PILLOW_MODES = ("L", "LA", "RGB", "RGBA", "I;16")


@dataclass(frozen=True)
class Stimulus:
    """One image, ready to be sent."""

    index: int
    """Its position among the images, counted from 0."""
    name: str
    """Its path, or what it is."""
    content: bytes | Array | UnreadableStimulus
    """An encoded image; pixels of the input's size, uint8, or the network's input, float32 `[C, H, W]`; or why there is
    nothing."""

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        if isinstance(self.content, UnreadableStimulus):
            return 0
        return len(self.content) if isinstance(self.content, bytes) else self.content.nbytes


def each(images: Images) -> Iterable[Image]:
    """The images one by one."""
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or _is_pillow(images):
        return [images]
    if _is_array(images):
        array = _as_numpy(images)
        return [array] if array.ndim < 4 else array
    if isinstance(images, Iterable):
        return images
    raise InvalidRequest(
        f"images are paths, bytes, Pillow images, arrays or tensors, not {type(images).__name__}"
    )


def listed(images: Images) -> Sequence[Image]:
    """The images as a sequence, of which a part can be taken."""
    every = each(images)
    # Arrays are sequences in all but name.
    return cast("Sequence[Image]", every) if isinstance(every, (Sequence, np.ndarray)) else list(every)


def identity(image: Image) -> str:
    """What tells images in a file of activations apart: paths, or the pixels' digest."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        content = bytes(image)
    else:
        content = image.tobytes() if _is_pillow(image) else np.ascontiguousarray(_as_numpy(image)).tobytes()
    return f"{describe(image)} {hashlib.blake2b(content, digest_size=8).hexdigest()}"


def count(images: Iterable[Image]) -> int | None:
    """How many there are, where that is known."""
    return len(images) if isinstance(images, Sized) else None


def stimuli(images: Iterable[Image], input_shape: tuple[int, ...], first: int = 0) -> Iterator[Stimulus]:
    """Reads images when they are asked for. What can't be read is a stimulus that says so. `first`: the first one's index."""
    for index, image in enumerate(images, first):
        name = describe(image)
        try:
            with decoding():
                content: bytes | Array | UnreadableStimulus = _content(image, input_shape)
        except (OSError, ValueError) as error:
            content = UnreadableStimulus(index, name, problem_of(error))
        yield Stimulus(index, name, content)


@contextmanager
def decoding() -> Iterator[None]:
    """Makes one kind of error of the many that Pillow has for files that it can't decode: a `ValueError`."""
    try:
        yield
    except Exception as error:
        kinds = (SyntaxError, EOFError, struct.error)
        if isinstance(error, kinds) or type(error).__name__ == "DecompressionBombError":
            raise ValueError(str(error)) from error
        raise


def problem_of(error: OSError | ValueError) -> str:
    """Why an image can't be read."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def describe(image: Image) -> str:
    """What an image is called in messages and files."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"{len(image)} bytes"
    if _is_pillow(image):
        filename = getattr(image, "filename", "")
        return str(filename) or "Pillow image"
    if _is_array(image):
        return f"array {list(_as_numpy(image).shape)}"
    return type(image).__name__


def _content(image: Image, input_shape: tuple[int, ...]) -> bytes | Array:
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if _is_pillow(image):
        return _png(image)
    if _is_array(image):
        return _from_array(_as_numpy(image), input_shape)
    raise ValueError(f"images are paths, bytes, Pillow images, arrays or tensors, not {type(image).__name__}")


def _from_array(array: Array, input_shape: tuple[int, ...]) -> bytes | Array:
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.dtype.kind == "f":
        if array.shape != input_shape:
            raise ValueError(
                f"an array of {array.dtype} is the network's input itself, {list(input_shape)}, not {list(array.shape)}; "
                "pixels are uint8"
            )
        return array.astype(np.float32, copy=False)
    if array.dtype != np.uint8:
        raise ValueError(f"arrays are uint8 pixels or the network's float32 input, not {array.dtype}")
    pixels = array[:, :, np.newaxis] if array.ndim == 2 else array
    if pixels.ndim != 3:
        raise ValueError(f"pixels are [H, W, C], [C, H, W] or [H, W], not {list(array.shape)}")
    channels, height, width = input_shape
    if pixels.shape in {(channels, height, width), (height, width, channels)}:
        return np.ascontiguousarray(pixels)
    if pixels.shape[-1] > 4 and pixels.shape[0] <= 4:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape[-1] > 4:
        raise ValueError(f"pixels have 1 to 4 channels, which {list(array.shape)} has nowhere")
    try:
        from PIL import Image as pillow
    except ImportError as error:
        purpose = f"sending pixels of another size than the network's input {list(input_shape)}"
        raise MissingPackage("Pillow", "images", purpose) from error
    squeezed = pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels
    return _png(pillow.fromarray(np.ascontiguousarray(squeezed)))


def _png(image: PillowImage) -> bytes:
    """Without loss, and fast rather than small."""
    if image.mode not in _PILLOW_MODES:
        has_alpha = image.mode in ("PA", "La", "RGBa") or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "L" if image.mode == "1" else "RGB")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _is_pillow(image: object) -> TypeGuard[PillowImage]:
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(image).__mro__)


def _is_array(image: object) -> bool:
    return isinstance(image, np.ndarray) or _is_torch(image)


def _is_torch(image: object) -> bool:
    # torch is large, and there where a tensor comes from it.
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(image).__mro__)


def _as_numpy(image: Image) -> Array:
    if _is_torch(image):
        tensor = cast(Any, image).detach().cpu()
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    return np.asarray(image)
