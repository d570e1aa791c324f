"""When a call that failed is worth repeating, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc

from .failures import Failure, is_status_lost

#: How often a refusal that doesn't say when to come back is repeated: most such requests are too large for ever.
_UNEXPLAINED = 2

#: How often a call is repeated whose status was lost.
_LOST_STATUS = 3

#: How often a server that has never answered is looked for again: its address may be wrong.
_UNKNOWN_ADDRESS = 3


@dataclass(frozen=True)
class Retries:
    """Exponential back-off with jitter, or the server's own word."""

    attempts: int = 9
    """How often a call is repeated without any progress."""
    initial: float = 0.2
    """Seconds before the first repetition."""
    multiplier: float = 2.0
    """How much longer it is before each other one."""
    maximum: float = 10.0
    """Seconds before a repetition at most, unless the server asks for more."""
    longest_wait: float = 120.0
    """Seconds that a server may ask for; where it asks for more, the call fails."""


DEFAULT = Retries()


class Attempts:
    """The repetitions of one call."""

    def __init__(self, policy: Retries, unexplained: int = _UNEXPLAINED) -> None:
        """Without any yet. `unexplained`: how often a refusal that doesn't say when to come back is repeated."""
        self._policy = policy
        self._unexplained = unexplained
        self._failures = 0
        #: How many of the last failures' statuses were lost: the next attempt finds it if it doesn't send at once.
        self.lost_statuses = 0

    def progressed(self) -> None:
        """An answer came: what fails next is a new failure."""
        self._failures = 0

    def delay(self, error: Failure, has_answered: bool) -> float | None:
        """Seconds to wait before the next attempt; None: there is none. `has_answered`: whether the server ever did."""
        allowed = self._policy.attempts
        code = error.code()
        self.lost_statuses = self.lost_statuses + 1 if is_status_lost(error) else 0
        asked = retry_after(error)
        if code == grpc.StatusCode.UNAVAILABLE:
            if not has_answered and asked is None and _is_unreachable(error):
                allowed = min(allowed, _UNKNOWN_ADDRESS)
        elif code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            if asked is None:
                allowed = min(allowed, self._unexplained)
        elif self.lost_statuses:
            allowed = min(allowed, _LOST_STATUS)
        else:
            return None
        if self._failures >= allowed or (asked is not None and not 0 <= asked <= self._policy.longest_wait):
            return None
        ceiling = min(self._policy.maximum, self._policy.initial * self._policy.multiplier**self._failures)
        self._failures += 1
        # Clients that were refused together must not come back together.
        return (asked or 0.0) + random.uniform(0.5, 1.0) * ceiling


def retry_after(error: Failure) -> float | None:
    """Seconds after which the server wants to be asked again; negative: never."""
    metadata = dict(error.trailing_metadata() or ())
    for key, unit in (("grpc-retry-pushback-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return float(str(metadata[key])) * unit
        except (KeyError, ValueError):
            continue
    return None


def _is_unreachable(error: Failure) -> bool:
    details = (error.details() or "").lower()
    return any(
        sign in details for sign in ("failed to connect", "dns resolution", "name resolution", "ssl", "tls")
    )
