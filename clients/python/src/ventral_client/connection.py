"""How a server is reached: address, TLS, token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, Union

import grpc

from .errors import InvalidRequest

DEFAULT_PORT = 50051

#: Activations are far larger than gRPC's usual limit. A server that restarts is to be found again soon.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    # Retries are this package's, which resumes streams, too.
    ("grpc.enable_retries", 0),
    # Clients of one process have connections of their own.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class Tls:
    """TLS with certificates of one's own; paths of PEM files."""

    authorities: str | os.PathLike[str] | None = None
    """Who may have signed the server's certificate; None: whom gRPC trusts."""
    certificate: str | os.PathLike[str] | None = None
    """The client's own, where the server asks for one."""
    key: str | os.PathLike[str] | None = None
    """The certificate's key."""
    server_name: str | None = None
    """The name in the server's certificate, where it isn't the address's."""


#: None: by the address (`https://…` is TLS); True: TLS, trusting whom gRPC trusts; a path: trusting who is in that file.
TlsChoice: TypeAlias = Union[bool, str, "os.PathLike[str]", Tls, None]


@dataclass(frozen=True)
class Endpoint:
    """Where and how to connect."""

    address: str
    """`host:port`, as gRPC takes it."""
    credentials: grpc.ChannelCredentials | None
    """None: no TLS."""
    options: tuple[tuple[str, int | str], ...]
    metadata: tuple[tuple[str, str], ...]
    """Goes with every call."""


def endpoint(address: str, token: str | None, tls: TlsChoice) -> Endpoint:
    """What the arguments of a client mean.

    Raises:
        InvalidRequest: Where they mean nothing.
    """
    scheme, separator, rest = address.rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise InvalidRequest(
            f"{address!r} is no address; expected host:port, http://host:port or https://host:port"
        )
    host = rest.rstrip("/")
    if not host or "/" in host:
        raise InvalidRequest(f"{address!r} is no address; expected host:port")
    if not _has_port(host):
        host = f"{host}:{DEFAULT_PORT}"
    if tls is None:
        tls = scheme == "https"
    options: tuple[tuple[str, int | str], ...] = CHANNEL_OPTIONS
    credentials = None
    if tls is not False:
        chosen = tls if isinstance(tls, Tls) else Tls() if tls is True else Tls(authorities=tls)
        credentials = grpc.ssl_channel_credentials(
            _read(chosen.authorities), _read(chosen.key), _read(chosen.certificate)
        )
        if chosen.server_name is not None:
            options = (*options, ("grpc.ssl_target_name_override", chosen.server_name))
    if token and not (token.isascii() and token.isprintable()):
        raise InvalidRequest(
            "the token has characters that no token has: pass it as `server token new` printed it"
        )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return Endpoint(host, credentials, options, metadata)


def _has_port(host: str) -> bool:
    # `[::1]:50051` has one, `[::1]` hasn't.
    return ":" in host.rpartition("]")[2]


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"tls: can't read {os.fspath(path)}: {error.strerror}") from error
