"""What gRPC's errors have in common, with threads and with asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast

import grpc


class Failure(Protocol):
    """A call that failed."""

    def code(self) -> grpc.StatusCode:
        """The status."""

    def details(self) -> str | None:
        """The server's words, or gRPC's."""

    def trailing_metadata(self) -> Iterable[tuple[str, Any]] | None:
        """What the server said beside the status."""


def failure(error: grpc.RpcError) -> Failure:
    """An error that a call raised, which has all of this though its type doesn't say so."""
    return cast(Failure, error)
