"""Files of `torch.save`, read and written without PyTorch: a zip archive with a pickle and its tensors' elements."""

import io
import pickle
import pickletools
import sys
import types
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

#: The instructions that the unpickler behind `torch.load(weights_only=True)` runs.
SAFE_INSTRUCTIONS = """
    APPEND APPENDS BINFLOAT BINGET BININT BININT1 BININT2 BINPERSID BINPUT BINUNICODE BUILD EMPTY_DICT EMPTY_LIST
    EMPTY_SET EMPTY_TUPLE GLOBAL LONG1 LONG_BINGET LONG_BINPUT MARK NEWFALSE NEWOBJ NEWTRUE NONE PROTO REDUCE SETITEM
    SETITEMS SHORT_BINSTRING STOP TUPLE TUPLE1 TUPLE2 TUPLE3
"""

#: Elements by the names of PyTorch's storages.
ELEMENTS = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8"), "HalfStorage": np.dtype("<f2")}


def load(path: Path) -> dict:
    """Reads an archive as `torch.load(path, weights_only=True)` does; tensors become arrays.

    Raises:
        pickle.UnpicklingError: Where PyTorch would refuse it.
    """
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        prefix = name.removesuffix("data.pkl")
        assert archive.read(f"{prefix}byteorder") == b"little"
        assert archive.read(f"{prefix}version").strip() == b"3"
        stream = archive.read(name)
        safe = SAFE_INSTRUCTIONS.split()
        for opcode, _, position in pickletools.genops(stream):
            if opcode.name not in safe:
                message = f"{opcode.name} at byte {position} isn't safe"
                raise pickle.UnpicklingError(message)
        return _Unpickler(archive, prefix, stream).load()


def save(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as `torch.save(model.state_dict(), path)` does."""
    prefix = path.stem
    storages: list[np.ndarray] = []
    with _torch_names() as names, zipfile.ZipFile(path, "w") as archive:
        with archive.open(f"{prefix}/data.pkl", "w") as file:
            _Pickler(file, names, storages).dump(OrderedDict(tensors))
        archive.writestr(f"{prefix}/byteorder", "little")
        for key, elements in enumerate(storages):
            archive.writestr(f"{prefix}/data/{key}", elements.tobytes())
        archive.writestr(f"{prefix}/version", "3\n")


class _Unpickler(pickle._Unpickler):
    """Knows what a checkpoint needs, and nothing else. Python's own would run what a pickle asks for."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str, stream: bytes) -> None:
        super().__init__(io.BytesIO(stream))
        self.archive, self.prefix = archive, prefix

    def find_class(self, module: str, name: str) -> object:
        """A function or class by its name."""
        known: dict[tuple[str, str], object] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("collections", "Counter"): Counter,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        }
        if module == "torch" and name in ELEMENTS:
            return name
        try:
            return known[module, name]
        except KeyError:
            message = f"{module}.{name} isn't allowed"
            raise pickle.UnpicklingError(message) from None

    def persistent_load(self, pid: tuple) -> np.ndarray:
        """The elements of a storage."""
        kind, storage, key, location, count = pid
        assert (kind, location) == ("storage", "cpu")
        elements = np.frombuffer(self.archive.read(f"{self.prefix}data/{key}"), ELEMENTS[storage])
        assert len(elements) == count
        return elements


def _rebuild(
    storage: np.ndarray, offset: int, shape: tuple, strides: tuple, requires_grad: bool, hooks: OrderedDict
) -> np.ndarray:
    """A view of a storage, whose strides are in elements."""
    assert not requires_grad
    assert hooks == OrderedDict()
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    assert last < len(storage)
    strides = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


class _Storage:
    """Elements on their way into an archive, which the pickle only names."""

    def __init__(self, elements: np.ndarray, key: int) -> None:
        self.elements, self.key = elements, key


class _Pickler(pickle.Pickler):
    """Writes arrays as PyTorch writes tensors."""

    def __init__(
        self, file: object, names: Mapping[str, Callable | type], storages: list[np.ndarray]
    ) -> None:
        super().__init__(file, protocol=2)
        self.names, self.storages = names, storages

    def reducer_override(self, obj: object) -> object:
        """A tensor is a call with its storage."""
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        storage = _Storage(np.ascontiguousarray(obj), len(self.storages))
        self.storages.append(storage.elements)
        strides = tuple(stride // obj.itemsize for stride in storage.elements.strides) if obj.ndim else ()
        arguments = (storage, 0, obj.shape, strides, False, OrderedDict())
        return self.names["_rebuild_tensor_v2"], arguments

    def persistent_id(self, obj: object) -> tuple | None:
        """The name of a storage."""
        if not isinstance(obj, _Storage):
            return None
        (kind,) = (kind for kind, dtype in ELEMENTS.items() if dtype == obj.elements.dtype)
        return ("storage", self.names[kind], str(obj.key), "cpu", obj.elements.size)


@contextmanager
def _torch_names() -> Iterator[dict[str, Callable | type]]:
    """Functions and classes that a pickle names as PyTorch's."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2() -> None:
        """Only named."""

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    names: dict[str, Callable | type] = {"_rebuild_tensor_v2": _rebuild_tensor_v2}
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in ELEMENTS:
        names[name] = type(name, (), {"__module__": "torch"})
        setattr(torch, name, names[name])
    modules = {"torch": torch, "torch._utils": utils}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield names
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
