"""The protocol's tensors as NumPy arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MissingPackage, ServerFault
from .v1 import ventral_pb2 as pb

Array = npt.NDArray[Any]

_NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_BFLOAT16: np.dtype("<u2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}


def to_array(tensor: pb.Tensor, widen: bool) -> Array:
    """A tensor's values; `widen` makes 16 bits float32. The array may be read-only: a view of the message.

    Raises:
        ServerFault: Where the tensor contradicts itself.
        MissingPackage: Where NumPy lacks what the values need.
    """
    data = tensor.data
    if tensor.compression == pb.COMPRESSION_ZSTD:
        data = _decompress(data)
    shape = tuple(tensor.shape)
    data_type = _NUMPY_TYPES.get(tensor.data_type)
    if data_type is None or len(data) != data_type.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ServerFault(
            f"`{tensor.name}` came with {len(data)} bytes for the shape {list(shape)} and data type {tensor.data_type}: "
            "is this package as new as the server?"
        )
    values: Array = np.frombuffer(data, data_type).reshape(shape)
    if tensor.data_type == pb.DATA_TYPE_BFLOAT16:
        if not widen:
            return values.view(_bfloat16())
        # The upper half of a float32.
        widened: Array = (values.astype(np.uint32) << 16).view(np.float32)
        return widened
    if tensor.data_type == pb.DATA_TYPE_FLOAT16 and widen:
        return values.astype(np.float32)
    return values


def from_array(array: Array) -> pb.Tensor:
    """A tensor of stimuli: uint8 or float32."""
    is_pixels = array.dtype == np.uint8
    return pb.Tensor(
        shape=array.shape,
        data_type=pb.DATA_TYPE_UINT8 if is_pixels else pb.DATA_TYPE_FLOAT32,
        data=np.ascontiguousarray(array, "u1" if is_pixels else "<f4").tobytes(),
    )


def _decompress(data: bytes) -> bytes:
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError as error:
            raise MissingPackage("backports.zstd", "zstd", "compression='zstd'") from error
    unpacked: bytes = zstd.decompress(data)
    return unpacked


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as error:
        purpose = "data_type='bfloat16' with widen=False"
        raise MissingPackage("ml_dtypes", "bfloat16", purpose) from error
    data_type: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return data_type
