"""Activations on disk, as an HDF5 file that may be interrupted at any time.

While it grows it is `NAME.partial`. Everything in it has its place from the start, so that nothing but values is ever
written afterwards: a file that was killed is a whole HDF5 file. `progress` counts the images whose values are there.
It is made under a name of its own, and gets `NAME.partial` only if nothing has it: of two programs that begin the same file,
one goes on.

- `activations/LAYER`: `[N, …]`, a row an image
- `stimuli`: the images' names
- `readable`: whether there are activations; rows without are NaN
- `progress`: `[1]`, N in the end
- attributes: `format`, `model`, `version`, `checkpoint_digest`, `weights`, `layers`, `options` (the last two are JSON)
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .answers import Answer
from .errors import ExtractionMismatch, InvalidRequest, MissingPackage, UnwritableFile, VentralError
from .images import Image, identity
from .models import FULL_PRECISION, Model
from .options import Options

try:
    import h5py
except ImportError as error:
    raise MissingPackage("h5py", "extract", "extract") from error

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = "ventral-activations 1"

#: What doesn't change activations, or not by more than rounding.
_NOT_COMPARED = ("compression", "priority", "exclusive")

#: Seconds after which what has come is made to last.
SAVED_EVERY = 2.0


class ExtractionFile:
    """A file that fills up with answers, in their order; a context that saves what has come."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model,
        images: Sequence[Image],
        names: Sequence[str] | None,
        layers: list[str],
        options: Options,
        *,
        skip_unreadable: bool = False,
    ) -> None:
        """Opens the file of an earlier run if there is one. `skip_unreadable`: whether rows of NaN are as good as others.

        Raises:
            ExtractionMismatch: Where that is of something else, or another program is writing it.
            InvalidRequest: Where there can be no such file.
        """
        if options.data_type == "bfloat16" and not options.widen:
            raise InvalidRequest("HDF5 has no bfloat16: leave widen=True")
        twice = next((layer for layer in layers if layers.count(layer) > 1), None)
        if twice is not None:
            raise InvalidRequest(f"layer `{twice}` is named twice: a file has each layer once")
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise InvalidRequest(
                f"{self.path}: there is no folder {self.path.parent}: make it, or name another file"
            )
        self.layers = layers
        self._names = (
            [identity(image) for image in images] if names is None else [str(name) for name in names]
        )
        if len(self._names) != len(images):
            raise InvalidRequest(f"there are {len(self._names)} names for {len(images)} images")
        if not self._names:
            raise InvalidRequest("there are no images to extract activations of")
        compared = {key: value for key, value in asdict(options).items() if key not in _NOT_COMPARED}
        self._attributes = {
            "format": FORMAT,
            "model": model.name,
            "version": model.version,
            "checkpoint_digest": model.checkpoint_digest,
            "weights": model.weights,
            "layers": json.dumps(layers),
            "options": json.dumps(_plain(compared), sort_keys=True),
        }
        self._skip_unreadable = skip_unreadable
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._file: Any = None
        self._leading: list[Answer] = []
        self._saved_at = time.monotonic()
        #: How many images need no work any more.
        self.done = 0
        if self.path.exists():
            with _opened(self.path, "r") as file:
                self._check(file, self.path)
                self.done = int(file["progress"][0])
            if self.done != len(self._names):
                raise ExtractionMismatch(
                    f"{self.path} has activations of {self.done} of its {len(self._names)} images: remove it to start again"
                )
        elif self._partial.exists():
            self._file = _opened(self._partial, "r+")
            try:
                self._check(self._file, self._partial)
            except BaseException:
                self._file.close()
                raise
            self.done = int(self._file["progress"][0])
            if self.done == len(self._names) - 1:
                # A single image is rounded otherwise than several: the one before it is computed again with it.
                self.done = max(0, self.done - 1)

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Saves what has come; gives the file its name if that is all."""
        if self._file is not None:
            with self._writing():
                try:
                    self._save()
                finally:
                    self._file.close()
                if self.done == len(self._names):
                    self._partial.replace(self.path)
        elif self._leading and error is None:
            problem = self._leading[0].unreadable
            raise InvalidRequest(f"none of the images can be read, the first because: {problem}")

    def add(self, answer: Answer) -> None:
        """Takes the next answer.

        Raises:
            UnwritableFile: Where it can't be written.
            ExtractionMismatch: Where another program has begun the file.
        """
        with self._writing():
            if self._file is None:
                if answer.unreadable is not None:
                    # The shapes are known with the first activations.
                    self._leading.append(answer)
                    return
                self._create(answer)
                for leading in self._leading:
                    self._write(leading)
            self._write(answer)
            if time.monotonic() - self._saved_at > SAVED_EVERY:
                self._save()

    def _create(self, answer: Answer) -> None:
        """Makes the file with all its places, and only then gives it the name by which it is found again."""
        new = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.new")
        try:
            self._fill(new, answer)
            if not _named(new, self._partial):
                raise ExtractionMismatch(_being_written(self._partial))
        finally:
            new.unlink(missing_ok=True)
        self._file = _opened(self._partial, "r+")

    def _fill(self, path: Path, answer: Answer) -> None:
        count = len(self._names)
        with h5py.File(path, "x") as file:
            for key, value in self._attributes.items():
                file.attrs[key] = value
            file.create_dataset("stimuli", data=self._names, dtype=h5py.string_dtype())
            activations = file.create_group("activations")
            for layer in self.layers:
                values = answer.activations[layer]
                _allocate(activations, layer, (count, *values.shape), values.dtype)
            _allocate(file, "readable", (count,), np.dtype(np.bool_))
            _allocate(file, "progress", (1,), np.dtype(np.uint64))
            file["progress"][0] = 0

    def _write(self, answer: Answer) -> None:
        is_readable = answer.unreadable is None
        for layer in self.layers:
            values = self._file["activations"][layer]
            values[answer.index] = answer.activations[layer] if is_readable else np.nan
        self._file["readable"][answer.index] = is_readable
        self.done = answer.index + 1

    def _save(self) -> None:
        self._synchronise()
        # After the values: it never counts what isn't there.
        self._file["progress"][0] = self.done
        self._synchronise()
        self._saved_at = time.monotonic()

    def _synchronise(self) -> None:
        self._file.flush()
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Says what can't be written, in the place of the system's error."""
        try:
            yield
        except VentralError:
            raise
        except OSError as error:
            kept = (
                f"; what was saved before is kept in {self._partial.name}" if self._partial.exists() else ""
            )
            raise UnwritableFile(f"{self.path} can't be written: {_problem(error)}{kept}") from error

    def _check(self, file: h5py.File, path: Path) -> None:
        advice = f"pass another path, or remove {path} to start again"
        for key, expected in self._attributes.items():
            # Files of before there was this attribute are of networks that weren't rounded.
            found = file.attrs.get(key, FULL_PRECISION if key == "weights" else None)
            if found != expected:
                raise ExtractionMismatch(
                    f"{path} has {key} {found}, and this extraction {expected}: {advice}"
                )
        names = file["stimuli"].asstr()[:].tolist()
        if names != self._names:
            differing = (
                i for i, pair in enumerate(zip(names, self._names, strict=False)) if pair[0] != pair[1]
            )
            where = next(differing, min(len(names), len(self._names)))
            raise ExtractionMismatch(
                f"{path} is of {len(names)} images and this extraction of {len(self._names)}, the first that differs is "
                f"image {where} (counted from 0): {advice}"
            )
        if not self._skip_unreadable:
            done = int(file["progress"][0])
            unreadable = np.flatnonzero(~file["readable"][:done])
            if len(unreadable) > 0:
                raise ExtractionMismatch(
                    f"{path} has rows of NaN for {len(unreadable)} images that couldn't be read, the first "
                    f"{names[unreadable[0]]}: pass skip_unreadable=True (command line: --skip-unreadable) to take them, or "
                    f"{advice}"
                )


def _allocate(parent: h5py.Group, name: str, shape: tuple[int, ...], data_type: np.dtype[Any]) -> None:
    """Makes a data set whose place in the file is fixed."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    stored = h5py.h5t.py_create(data_type, logical=True)
    h5py.h5d.create(parent.id, name.encode(), stored, h5py.h5s.create_simple(shape), properties)


def _opened(path: Path, mode: str) -> h5py.File:
    try:
        return h5py.File(path, mode)
    except BlockingIOError as error:
        raise ExtractionMismatch(_being_written(path)) from error
    except OSError as error:
        raise ExtractionMismatch(
            f"{path} can't be opened as an HDF5 file ({_problem(error)}): pass another path"
        ) from error


def _being_written(path: Path) -> str:
    return f"{path} is being written by another program: wait for it, or end it"


def _named(file: Path, name: Path) -> bool:
    """Gives a file another name, unless something has that."""
    try:
        os.link(file, name)
    except FileExistsError:
        return False
    except OSError:
        # Not every file system has files of two names.
        try:
            name.open("x").close()
        except FileExistsError:
            return False
        file.replace(name)
    return True


def _problem(error: OSError) -> str:
    """In the system's words where there are some: HDF5's are long."""
    return os.strerror(error.errno) if error.errno else str(error)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    units = {layer: [int(index) for index in indices] for layer, indices in options["units"].items()}
    return {**options, "units": units, "projections": list(options["projections"])}
