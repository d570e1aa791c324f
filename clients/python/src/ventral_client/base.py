"""What both clients are made of: how they are set up, which model is meant, and what failed calls lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import grpc

from .connection import Endpoint, TlsChoice, endpoint
from .failures import failure
from .images import Stimulus
from .retries import DEFAULT, Attempts, Retries
from .statuses import translate
from .v1 import ventral_pb2_grpc

Channel = TypeVar("Channel")


class ClientBase(Generic[Channel]):
    """A connection to a server, over a channel of either kind.

    Args:
        address: `host:port`, or `https://host:port` for TLS.
        token: Goes with every call, as `authorization: Bearer …`.
        tls: None: as the address says; True; a PEM file of authorities; or `Tls`.
        model: The model that calls are about unless they say otherwise; None: the only one that the server has.
        retries: When failed calls are repeated; None: never.
        timeout: Seconds that a call may take, each repetition anew; of streams, none.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        tls: TlsChoice = None,
        *,
        model: str | None = None,
        retries: Retries | None = DEFAULT,
        timeout: float = 300.0,
    ) -> None:
        """Connects when it is first needed."""
        self._endpoint = endpoint(address, token, tls)
        self._default_model = model
        self._retries = retries or Retries(attempts=0)
        self._timeout = timeout
        self._channel = self._open(self._endpoint)
        self._stub = ventral_pb2_grpc.VentralStub(self._channel)  # type: ignore[no-untyped-call]
        self._has_answered = False

    @staticmethod
    def _open(endpoint: Endpoint) -> Channel:
        """A channel to the server."""
        raise NotImplementedError

    def _delay(self, attempts: Attempts, error: grpc.RpcError, sent: Sequence[Stimulus]) -> float:
        """Seconds until the next attempt; raises what says that there is none. `sent`: what the error may be about."""
        failed = failure(error)
        delay = attempts.delay(failed, self._has_answered)
        if delay is None:
            raise translate(failed, self._endpoint.address, list(sent)) from error
        return delay
