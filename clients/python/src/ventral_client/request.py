"""What a request for activations is, before it is sent: the same for clients with threads and with asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .answers import Prediction, Source
from .errors import InvalidRequest, UnknownModel, UnreadableStimulus
from .groups import Group, groups, images_a_group, set_stimuli
from .images import Images, count, each, stimuli
from .models import Model
from .options import Options
from .transfer import IN_FLIGHT_BYTES, Transfer
from .v1 import ventral_pb2 as pb

#: Images in flight at most, unless told otherwise.
_IN_FLIGHT_IMAGES = 128


@dataclass(frozen=True)
class ActivationRequest:
    """Activations of some layers for images."""

    model: Model
    layers: list[str]
    options: Options
    transfer: Transfer
    count: int | None
    """How many images there are, where that is known."""


@dataclass(frozen=True)
class Handling:
    """How a request is worked through."""

    in_flight: int | None = None
    """Images that are under way at a time at most; None: as fit well into memory."""
    skip_unreadable: bool = False
    """Whether what can't be read is an answer instead of an error."""
    first: int = 0
    """The first image's index."""


def activation_request(
    model: Model, images: Images, layers: str | Sequence[str], options: Options, handling: Handling
) -> ActivationRequest:
    """Checks a request as far as that can be done here.

    Raises:
        UnknownLayer: Where the model has no such layer.
        InvalidRequest: Where it makes no sense.
    """
    in_flight = handling.in_flight
    if in_flight is not None and in_flight < 1:
        raise InvalidRequest(f"in_flight={in_flight}: there has to be an image under way at least")
    layers = model.check_layers(layers)
    iterable = each(images)
    activation_bytes = model.activation_bytes(layers, options)
    group = images_a_group(activation_bytes)
    if in_flight is None:
        in_flight = max(2 * group, min(_IN_FLIGHT_IMAGES, IN_FLIGHT_BYTES // max(1, activation_bytes)))
    start = pb.StreamStart(
        model=model.name,
        version=model.version,
        layers=layers,
        options=options.message(),
        skip_unreadable=handling.skip_unreadable,
    )
    transfer = Transfer(
        groups(stimuli(iterable, model.input_shape, handling.first), min(group, in_flight)),
        Source(model.name, model.version, model.checkpoint_digest, model.weights),
        in_flight=in_flight,
        start=start,
        options=options,
        skip_unreadable=handling.skip_unreadable,
    )
    return ActivationRequest(model, layers, options, transfer, count(iterable))


def predictions(classification: pb.Classification) -> list[Prediction]:
    """The classes of one image, likeliest first."""
    return [
        # `class` is a word of Python's.
        Prediction(getattr(prediction, "class"), prediction.name, prediction.probability, prediction.logit)
        for prediction in classification.predictions
    ]


def classify_request(model: Model, group: Group, top_k: int, options: Options) -> pb.ClassifyRequest:
    """Asks for the classes of a group.

    Raises:
        InvalidRequest: Where `top_k` is none.
        UnreadableStimulus: The first that can't be read.
    """
    if not 1 <= top_k < 1 << 32:
        raise InvalidRequest(f"top_k={top_k}: ask for one class at least, and for no more than there are")
    for stimulus in group.stimuli:
        if isinstance(stimulus.content, UnreadableStimulus):
            raise stimulus.content
    message = pb.ClassifyRequest(
        model=model.name,
        version=model.version,
        top_k=top_k,
        preprocessing=options.preprocessing_number(),
        priority=options.priority_number(),
    )
    set_stimuli(message, group.stimuli)
    return message


def only_model(names: Sequence[str], address: str) -> str:
    """The model that is meant where none is named.

    Raises:
        UnknownModel: Where there are none, or several.
    """
    if len(names) != 1:
        there = ", ".join(names) if names else "none"
        raise UnknownModel(f"the server at {address} has these models: {there}; name one, with model=…")
    return names[0]
