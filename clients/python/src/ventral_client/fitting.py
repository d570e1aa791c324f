"""Projections that the server has, and fits them: what a fit is before it is sent, what it sends and what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from .errors import InvalidRequest, ServerFault, UnreadableStimulus
from .groups import Group, groups, images_a_group
from .images import Image, Stimulus, stimuli
from .models import Model
from .options import Options, Pooling, Preprocessing, Priority
from .progress import Bar, bar
from .tensors import Array
from .v1 import ventral_pb2 as pb


class FitArguments(TypedDict, total=False):
    """Those fields of `Options` that a fit can have, as keyword arguments."""

    preprocessing: Preprocessing
    pooling: Pooling
    units: Mapping[str, Sequence[int]]
    priority: Priority | None
    exclusive: bool


@dataclass(frozen=True)
class Projection:
    """A linear map of a layer's activations, which the server can apply."""

    name: str
    """What `projections=[…]` calls it."""
    layer: str
    features: int
    """Values that it takes of an image."""
    components: int
    """Values that it gives."""
    stored: bool
    """Whether it lies beside the model, and can't be deleted or replaced."""


@dataclass(frozen=True, eq=False)
class FittedProjection(Projection):
    """The principal components of a layer's activations."""

    images: int
    """Images that it was fitted on."""
    explained_variance: Array
    """The variance in the direction of every component, `[components]`, as scikit-learn's `explained_variance_`."""
    total_variance: float
    """The variance in all directions together."""
    exact: bool
    """Whether the decomposition is exact up to rounding, or by randomised subspace iteration."""

    @property
    def explained_variance_ratio(self) -> Array:
        """Every component's share of the whole variance; zeros where there is none."""
        if self.total_variance == 0.0:
            return np.zeros_like(self.explained_variance)
        ratio: Array = self.explained_variance / self.total_variance
        return ratio

    @property
    def singular_values(self) -> Array:
        """Those of the centred activations of all images."""
        values: Array = np.sqrt(self.explained_variance * max(0, self.images - 1))
        return values


@dataclass(frozen=True)
class FitRequest:
    """What is fitted."""

    model: Model
    images: Sequence[Image]
    layers: list[str]
    options: Options
    start: pb.FitStart


class Feed:
    """What one attempt at a fit sends."""

    def __init__(self, request: FitRequest) -> None:
        """Has sent nothing."""
        self._request = request
        self.sent: list[Stimulus] = []
        """What an error may be about, without its content."""
        self.problem: Exception | None = None
        """Why it ended before its time."""

    def messages(self) -> Iterator[pb.FitProjectionsRequest]:
        """The start, and the images group by group, read when they are asked for.

        Where one can't be read, or reading fails, `problem` says so and nothing more comes: then the call has to be
        cancelled, for the server would take the end for the last image.
        """
        yield pb.FitProjectionsRequest(start=self._request.start)
        try:
            for group in self._groups():
                unreadable = next(
                    (
                        stimulus.content
                        for stimulus in group.stimuli
                        if isinstance(stimulus.content, UnreadableStimulus)
                    ),
                    None,
                )
                if unreadable is not None and not self._request.start.skip_unreadable:
                    raise unreadable
                if group.readable:
                    self.sent += [Stimulus(stimulus.index, stimulus.name, b"") for stimulus in group.readable]
                    yield pb.FitProjectionsRequest(stimuli=group.content())
        except Exception as error:  # noqa: BLE001
            # Whoever reads the answers raises it: here it would end in a thread of gRPC's.
            self.problem = error

    def _groups(self) -> Iterator[Group]:
        model = self._request.model
        size = images_a_group(model.activation_bytes(self._request.layers, self._request.options))
        return groups(stimuli(self._request.images, model.input_shape), size)


class FitBars:
    """A bar for the images, then one for the layers."""

    def __init__(self, shown: bool, request: FitRequest) -> None:
        """Shows how nothing is done yet, if it shows anything."""
        self._shown = shown
        self._layers = len(request.layers)
        self._bar: Bar = bar(shown, len(request.images))
        self._images = 0
        self._layers_done: int | None = None

    def show(self, progress: pb.FitProgress) -> None:
        """Moves on; an attempt that begins anew starts at the images again, without moving back."""
        self._bar.update(max(0, progress.images - self._images))
        self._images = max(self._images, progress.images)
        if progress.phase in (pb.FIT_PHASE_DECOMPOSING, pb.FIT_PHASE_STORING):
            if self._layers_done is None:
                self._bar.close()
                self._bar = bar(self._shown, self._layers, unit="layer")
                self._layers_done = 0
            self._layers_to(progress.layers_done)

    def finish(self) -> None:
        """Everything is done."""
        if self._layers_done is not None:
            self._layers_to(self._layers)

    def close(self) -> None:
        """No more will be shown."""
        self._bar.close()

    def _layers_to(self, done: int) -> None:
        if self._layers_done is not None and done > self._layers_done:
            self._bar.update(done - self._layers_done)
            self._layers_done = done


def fit_request(
    model: Model,
    images: Sequence[Image],
    layers: str | Sequence[str],
    name: str,
    options: Options,
    *,
    components: int,
    seed: int,
    skip_unreadable: bool,
) -> FitRequest:
    """Checks a fit as far as that can be done here.

    Raises:
        UnknownLayer: Where the model has no such layer.
        InvalidRequest: Where it makes no sense.
    """
    if not 1 <= components < 1 << 32:
        raise InvalidRequest(f"components={components}: ask for at least one")
    if not 0 <= seed < 1 << 64:
        raise InvalidRequest(f"seed={seed}: a seed is a whole number from 0, of 64 bits")
    if len(images) < 2:
        raise InvalidRequest(f"{len(images)} images don't vary: a fit takes two at least")
    names = model.check_layers(layers)
    start = pb.FitStart(
        model=model.name,
        version=model.version,
        layers=names,
        name=name,
        components=components,
        options=options.message(),
        seed=seed,
        skip_unreadable=skip_unreadable,
    )
    return FitRequest(model, images, names, options, start)


def projection(message: pb.Projection) -> Projection:
    """From the protocol."""
    return Projection(message.name, message.layer, message.features, message.components, message.stored)


def fitted(request: FitRequest, result: pb.FitResult) -> dict[str, FittedProjection]:
    """Layer to what was fitted, in the order of the request.

    Raises:
        ServerFault: Where the answer is about other layers.
    """
    found = {message.projection.layer: _fitted(message) for message in result.projections}
    if list(found) != request.layers:
        raise ServerFault(f"the server fitted {list(found)}, expected {request.layers}")
    return found


def _fitted(message: pb.FittedProjection) -> FittedProjection:
    described = message.projection
    return FittedProjection(
        described.name,
        described.layer,
        described.features,
        described.components,
        described.stored,
        message.images,
        np.array(message.explained_variance),
        message.total_variance,
        message.exact,
    )
