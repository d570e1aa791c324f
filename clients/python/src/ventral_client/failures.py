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


#: What gRPC says where no answer came from a server, in small letters. It has no other way to say so.
_CONNECTION_FAILURES = (
    "failed to connect",
    "dns resolution",
    "name resolution",
    "name or service not known",
    "no such host",
    "connection refused",
    "connection reset",
    "connection closed",
    "connection aborted",
    "connection attempt timed out",
    "connection timed out",
    "connecting to",
    "broken pipe",
    "endpoint closing",
    "fd shutdown",
    "goaway",
    "handshake",
    "http2 header",
    "http2 ping",
    "keepalive",
    "network is unreachable",
    "no route to host",
    "recvmsg",
    "sendmsg",
    "rst_stream",
    "settings frame",
    "socket",
    "ssl",
    "stream removed",
    "tls",
    "transport",
    "upstream connect",
)


def is_connection_failure(error: Failure) -> bool:
    """Whether an UNAVAILABLE is gRPC's own, for no server was reached or the connection broke, or a server's word."""
    details = (error.details() or "").lower()
    return not details or any(sign in details for sign in _CONNECTION_FAILURES)


def is_status_lost(error: Failure) -> bool:
    """Whether an INTERNAL is gRPC's own: with asyncio, a message that can't be sent any more, for the server has ended the call,
    hides the status that it has ended it with.
    """
    return error.code() == grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"


def failure(error: grpc.RpcError) -> Failure:
    """An error that a call raised, which has all of this though its type doesn't say so."""
    return cast(Failure, error)
