"""What can go wrong: one family of exceptions, whose messages say what to do."""

from __future__ import annotations

from collections.abc import Sequence


class VentralError(Exception):
    """Everything that this package raises on purpose."""


class NoServer(VentralError, ConnectionError):
    """No server answers at the address, it stopped answering and didn't come back, or it says that it can't now."""


class ClientClosed(VentralError):
    """The client was closed while something was under way."""


class NotAuthorised(VentralError, PermissionError):
    """The server wants another token."""


class UnknownModel(VentralError, LookupError):
    """The server has no such model, or no such version of it."""


class UnknownLayer(VentralError, LookupError):
    """The model has no such layer."""

    def __init__(self, message: str, known: Sequence[str] = ()) -> None:
        """`known` are the layers that the model has."""
        super().__init__(message)
        self.known = list(known)


class UnknownProjection(VentralError, LookupError):
    """The server has no such projection of the model."""


class InvalidRequest(VentralError, ValueError):
    """The server, or this package, can't do what is asked."""


class UnreadableStimulus(VentralError, ValueError):
    """A stimulus that isn't an image, or can't be opened."""

    def __init__(self, index: int, name: str, problem: str) -> None:
        """`index` is its position among the images, counted from 0; `name` its path or what it is."""
        super().__init__(f"stimulus {index} (counted from 0), {name}: {problem}")
        self.index = index
        self.name = name
        self.problem = problem

    def __reduce__(self) -> tuple[type[UnreadableStimulus], tuple[int, str, str]]:
        """Pickles it with what it is made of."""
        return type(self), (self.index, self.name, self.problem)


class TooMuch(VentralError):
    """A request past a limit, or a server that stayed too busy."""


class TooSlow(VentralError, TimeoutError):
    """No answer came in time."""


class ModelChanged(VentralError):
    """Another network answers now than the one that gave the first activations."""


class ServerFault(VentralError):
    """The server's own fault; its log has the details."""


class MissingPackage(VentralError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        """`extra` is the extra of this package that installs it; None: it is installed by its own name."""
        what = package if extra is None else f"'ventral-client[{extra}]'"
        super().__init__(f"{purpose} needs {package}: pip install {what}")
        self._made_of = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingPackage], tuple[str, str | None, str]]:
        """Pickles it with what it is made of."""
        return type(self), self._made_of


class ExtractionMismatch(VentralError):
    """A file of an earlier extraction, of other images, layers or options, or one that another program is writing."""


class UnwritableFile(VentralError, OSError):
    """A file of activations can't be written: no folder, no permission, a full disk."""
