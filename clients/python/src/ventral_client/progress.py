"""A bar that shows how far a long transfer is."""

from __future__ import annotations

from typing import Protocol

from .errors import MissingPackage


class Bar(Protocol):
    """What is told of progress."""

    def update(self, n: int) -> object:
        """So many more are done."""

    def close(self) -> None:
        """No more will be done."""


class NoBar:
    """Shows nothing."""

    def update(self, n: int) -> None:
        """Ignores it."""

    def close(self) -> None:
        """Does nothing."""


def bar(shown: bool, total: int | None, done: int = 0, unit: str = "image") -> Bar:
    """A bar of tqdm's, if it is to be shown; `unit` is what is counted."""
    if not shown:
        return NoBar()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingPackage("tqdm", "progress", "progress=True") from error
    shown_bar: Bar = tqdm(total=total, initial=done, unit=unit)
    return shown_bar
