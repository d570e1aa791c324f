"""gRPC statuses as this package's exceptions."""

from __future__ import annotations

import re

import grpc

from .errors import (
    ClientClosed,
    InvalidRequest,
    NoServer,
    NotAuthorised,
    ServerFault,
    TooMuch,
    TooSlow,
    UnknownLayer,
    UnknownModel,
    UnknownProjection,
    UnreadableStimulus,
    VentralError,
)
from .failures import Failure, is_connection_failure
from .images import Stimulus

#: "model `lc` version 1 has no layer `x`; it has: a, b"
_UNKNOWN_LAYER = re.compile(r"has no layer `.*`; it has: (?P<known>.*)$", re.DOTALL)
#: "model `lc` version 1 has no projection `x`; it has: a, b"
_UNKNOWN_PROJECTION = re.compile(r"has no projection `[^`]*`")
#: In a stream, with the id that it was given, which is its position.
_STIMULUS_OF_STREAM = re.compile(
    r"stimulus `(?P<index>\d+)` in group \d+ \(counted from 0\): (?P<problem>.*)$", re.DOTALL
)
#: In a request or group, with its position there.
_IMAGE = re.compile(r"image (?P<index>\d+) \(counted from 0\): (?P<problem>.*)$", re.DOTALL)


def translate(error: Failure, address: str, stimuli: list[Stimulus]) -> VentralError:
    """What to raise in the place of a gRPC error. `stimuli`: what a unary call sent."""
    code = error.code()
    details = error.details() or ""
    unreadable = _unreadable(details, stimuli)
    if unreadable is not None:
        return unreadable
    status = grpc.StatusCode
    if code == status.UNAVAILABLE:
        if not is_connection_failure(error):
            return NoServer(
                f"the server at {address} can't answer now ({details}): try again later, or ask its operator"
            )
        return NoServer(
            f"no server answers at {address} ({details}): is it running (`server --models REPO --grpc {address}`), is the "
            "address right, and does the server use TLS if and only if this client does?"
        )
    if code == status.UNAUTHENTICATED:
        return NotAuthorised(
            f"the server at {address} doesn't accept the token ({details}): pass token=… "
            "(command line: --token-file or VENTRAL_TOKEN), as the server's operator gave it to you"
        )
    if code == status.PERMISSION_DENIED:
        return NotAuthorised(
            f"the token isn't for this ({details}): ask the operator of {address} for one that is"
        )
    if code == status.NOT_FOUND:
        layer = _UNKNOWN_LAYER.search(details)
        if layer is not None:
            return UnknownLayer(details, layer["known"].split(", "))
        if _UNKNOWN_PROJECTION.search(details):
            return UnknownProjection(details)
        return UnknownModel(details)
    if code in (status.INVALID_ARGUMENT, status.FAILED_PRECONDITION, status.OUT_OF_RANGE):
        return InvalidRequest(details)
    if code == status.RESOURCE_EXHAUSTED:
        return TooMuch(f"{details}: ask for less in a call, or later")
    if code == status.CANCELLED:
        return ClientClosed(
            f"the client was closed, or the call ended otherwise, before {address} had answered ({details})"
        )
    if code == status.DEADLINE_EXCEEDED:
        return TooSlow(f"{details}: ask for fewer images or layers in a call, or pass a longer timeout=…")
    if code == status.UNIMPLEMENTED:
        return InvalidRequest(
            f"what listens at {address} doesn't know this call ({details}): is it Ventral's gRPC port?"
        )
    return ServerFault(f"the server at {address} failed ({code.name}: {details}): its log has the details")


def _unreadable(details: str, stimuli: list[Stimulus]) -> UnreadableStimulus | None:
    in_stream = _STIMULUS_OF_STREAM.search(details)
    if in_stream is not None:
        index, problem = int(in_stream["index"]), in_stream["problem"]
        own = _IMAGE.match(problem)
        named = [stimulus for stimulus in stimuli if stimulus.index == index]
        if own is not None and named:
            return UnreadableStimulus(index, named[0].name, own["problem"])
        return None
    in_request = _IMAGE.match(details)
    if in_request is not None and int(in_request["index"]) < len(stimuli):
        stimulus = stimuli[int(in_request["index"])]
        return UnreadableStimulus(stimulus.index, stimulus.name, in_request["problem"])
    return None
