"""The client for scripts and notebooks: every call returns when it is answered."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from . import request
from .answers import Answer, Prediction
from .base import ClientBase
from .connection import Endpoint
from .errors import ServerFault
from .fitting import (
    Feed,
    FitArguments,
    FitBars,
    FittedProjection,
    Projection,
    fit_request,
    fitted,
    projection,
)
from .gathering import Gathering
from .groups import groups
from .images import Images, Stimulus, each, listed, stimuli
from .models import Model, ModelVersions, model
from .options import OptionArguments, Options
from .progress import bar
from .request import ActivationRequest, Handling
from .retries import Attempts
from .tensors import Array
from .v1 import ventral_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")

#: Images of a classification that are sent at a time.
CLASSIFIED_TOGETHER = 32


class Client(ClientBase[grpc.Channel]):
    """A connection to a server; many threads may share it. Arguments are those of `ClientBase`."""

    def models(self) -> list[ModelVersions]:
        """The models that are served, sorted by name."""
        answer = self._call(self._stub.ListModels, pb.ListModelsRequest())
        return [ModelVersions(entry.name, list(entry.versions)) for entry in answer.models]

    def model(self, name: str | None = None, version: str = "") -> Model:
        """A model: its layers, shapes and classes. `version`: the newest unless named."""
        chosen = name or self._meant()
        return model(self._call(self._stub.GetModel, pb.GetModelRequest(model=chosen, version=version)))

    def activations(
        self,
        images: Images,
        layers: str | Sequence[str],
        *,
        model: str | None = None,
        version: str = "",
        progress: bool = False,
        in_flight: int | None = None,
        **options: Unpack[OptionArguments],
    ) -> dict[str, Array]:
        """Activations of all images in memory: layer to `[N, C, H, W]` (`fc`: `[N, classes]`).

        Args:
            images: Paths, bytes, Pillow images, arrays or tensors; or one array `[N, …]`.
            layers: Names of layers.
            model: The client's own unless named.
            version: The newest unless named.
            progress: Whether a bar is shown.
            in_flight: Images that are under way at a time at most.
            options: Fields of `Options`.

        Raises:
            VentralError: One of its kinds, which says what to do.
        """
        wanted = request.activation_request(
            self.model(model, version), images, layers, Options.of(**options), Handling(in_flight)
        )
        gathering = Gathering(wanted.layers, wanted.count)
        for answer in self._answers(wanted, progress):
            gathering.add(answer)
        return gathering.arrays()

    def stream(
        self,
        images: Images,
        layers: str | Sequence[str],
        *,
        model: str | None = None,
        version: str = "",
        progress: bool = False,
        in_flight: int | None = None,
        skip_unreadable: bool = False,
        **options: Unpack[OptionArguments],
    ) -> Iterator[Answer]:
        """The same, one image after the other, in their order: for sets that don't fit into memory.

        Images are read while answers are taken, no more than `in_flight` ahead. Where the connection breaks, it goes on
        with the first image that has no answer. With `skip_unreadable`, an image that can't be read is an answer that
        says why, and no error.
        """
        handling = Handling(in_flight, skip_unreadable)
        wanted = request.activation_request(
            self.model(model, version), images, layers, Options.of(**options), handling
        )
        return self._answers(wanted, progress)

    def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        model: str | None = None,
        version: str = "",
        **options: Unpack[OptionArguments],
    ) -> list[list[Prediction]]:
        """The likeliest classes of every image, likeliest first. Options: `preprocessing`, `priority`."""
        chosen = Options.of(**options)
        described = self.model(model, version)
        found: list[list[Prediction]] = []
        for group in groups(stimuli(each(images), described.input_shape), CLASSIFIED_TOGETHER):
            message = request.classify_request(described, group, top_k, chosen)
            answer = self._call(self._stub.Classify, message, group.stimuli)
            found.extend(request.predictions(entry) for entry in answer.classifications)
        return found

    def extract(
        self,
        images: Images,
        layers: str | Sequence[str],
        path: str | os.PathLike[str],
        *,
        names: Sequence[str] | None = None,
        model: str | None = None,
        version: str = "",
        progress: bool = False,
        in_flight: int | None = None,
        skip_unreadable: bool = False,
        **options: Unpack[OptionArguments],
    ) -> Path:
        """Activations as an HDF5 file, a data set a layer; a run that was interrupted goes on where it was.

        Args:
            images: As for `activations`; all are held, so let large ones be paths.
            layers: Names of layers.
            path: The file; it has this name when it is complete, and `.partial` behind it before.
            names: What the images are called in the file; their paths unless given.
            model: The client's own unless named.
            version: The newest unless named.
            progress: Whether a bar is shown.
            in_flight: Images that are under way at a time at most.
            skip_unreadable: Whether images that can't be read become rows of NaN, instead of an error.
            options: Fields of `Options`.

        Raises:
            ExtractionMismatch: Where the file is of other images, layers or options, of another network, or being written.
            UnwritableFile: Where it can't be written.
        """
        from .extraction import ExtractionFile

        chosen = Options.of(**options)
        described = self.model(model, version)
        images = listed(images)
        wanted_layers = described.check_layers(layers)
        with ExtractionFile(
            path, described, images, names, wanted_layers, chosen, skip_unreadable=skip_unreadable
        ) as file:
            handling = Handling(in_flight, skip_unreadable, first=file.done)
            wanted = request.activation_request(described, images[file.done :], file.layers, chosen, handling)
            for answer in self._answers(wanted, progress, file.done):
                file.add(answer)
        return file.path

    def fit_projections(
        self,
        images: Images,
        layers: str | Sequence[str],
        name: str,
        *,
        components: int = 1000,
        seed: int = 0,
        model: str | None = None,
        version: str = "",
        progress: bool = False,
        skip_unreadable: bool = False,
        **options: Unpack[FitArguments],
    ) -> dict[str, FittedProjection]:
        """Has the server fit the principal components of layers, in one pass over the images: layer to what came out.

        The projections are on the server from then on, called `<name>.<layer>`: that is what `projections=[…]` of
        `activations` takes, with the same options. Needs a token that may change what is served, where tokens are
        needed. A fit that the connection breaks begins again.

        Args:
            images: As for `activations`; all are held, so let large ones be paths.
            layers: Names of layers.
            name: What the projections' names begin with: letters, digits, `.`, `_` and `-`.
            components: At most; there are no more than images or values, and none without variance.
            seed: Of the random start where there are too many images for an exact decomposition.
            model: The client's own unless named.
            version: The newest unless named.
            progress: Whether bars are shown.
            skip_unreadable: Whether images that can't be read are left out, instead of an error.
            options: `preprocessing`, `pooling`, `units`, `priority` and `exclusive`, as in `Options`.

        Raises:
            VentralError: One of its kinds, which says what to do.
        """
        wanted = fit_request(
            self.model(model, version),
            listed(images),
            layers,
            name,
            Options.of(**options),
            components=components,
            seed=seed,
            skip_unreadable=skip_unreadable,
        )
        # What is too large is so for ever, and to find that out again may take long.
        attempts = Attempts(self._retries, unexplained=0)
        with closing(FitBars(progress, wanted)) as bars:
            while True:
                feed = Feed(wanted)
                try:
                    return fitted(wanted, self._one_fit(feed, bars))
                except grpc.RpcError as error:
                    if feed.problem is not None:
                        raise feed.problem from None
                    time.sleep(self._delay(attempts, error, feed.sent))

    def projections(self, model: str | None = None, version: str = "") -> list[Projection]:
        """The projections that the server has of a model, sorted by name."""
        request = pb.ListProjectionsRequest(model=model or self._meant(), version=version)
        answer = self._call(self._stub.ListProjections, request)
        return [projection(entry) for entry in answer.projections]

    def delete_projection(self, name: str, *, model: str | None = None, version: str = "") -> None:
        """Deletes a projection that was fitted or uploaded."""
        request = pb.DeleteProjectionRequest(model=model or self._meant(), version=version, name=name)
        self._call(self._stub.DeleteProjection, request)

    def close(self) -> None:
        """Ends the connection, and what is under way."""
        self._channel.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    @staticmethod
    def _open(endpoint: Endpoint) -> grpc.Channel:
        if endpoint.credentials is None:
            return grpc.insecure_channel(endpoint.address, endpoint.options)
        return grpc.secure_channel(endpoint.address, endpoint.credentials, endpoint.options)

    def _meant(self) -> str:
        """The model that is meant where a call names none."""
        return self._default_model or request.only_model(
            [entry.name for entry in self.models()], self._endpoint.address
        )

    def _call(self, method: Callable[..., T], message: object, sent: Sequence[Stimulus] = ()) -> T:
        attempts = Attempts(self._retries)
        while True:
            try:
                answer = method(message, timeout=self._timeout, metadata=self._endpoint.metadata)
            except grpc.RpcError as error:
                time.sleep(self._delay(attempts, error, sent))
            else:
                self._has_answered = True
                return answer

    def _answers(self, wanted: ActivationRequest, progress: bool, done: int = 0) -> Iterator[Answer]:
        total = None if wanted.count is None else wanted.count + done
        shown = bar(progress, total, done)
        attempts = Attempts(self._retries)
        try:
            while True:
                try:
                    for answer in self._one_stream(wanted, attempts):
                        yield answer
                        shown.update(1)
                    return
                except grpc.RpcError as error:
                    time.sleep(self._delay(attempts, error, wanted.transfer.sent))
        finally:
            shown.close()

    def _one_stream(self, wanted: ActivationRequest, attempts: Attempts) -> Iterator[Answer]:
        """What one stream answers; it ends when everything is answered, or raises gRPC's error."""
        transfer = wanted.transfer
        # gRPC takes messages out in a thread of its own; what is in there is no more than is in flight.
        messages: queue.SimpleQueue[pb.StreamActivationsRequest | None] = queue.SimpleQueue()
        for message in transfer.begin():
            messages.put(message)
        call = self._stub.StreamActivations(iter(messages.get, None), metadata=self._endpoint.metadata)
        try:
            while True:
                for group in transfer.refill():
                    if group.readable:
                        messages.put(group.message())
                yield from transfer.settled()
                if transfer.is_done():
                    return
                if not transfer.sent:
                    continue
                response = next(call, None)
                if response is None:
                    raise ServerFault(
                        "the server ended the stream before everything was answered: its log has more"
                    )
                self._has_answered = True
                attempts.progressed()
                yield from transfer.accept(response)
        finally:
            messages.put(None)
            call.cancel()

    def _one_fit(self, feed: Feed, bars: FitBars) -> pb.FitResult:
        """What one attempt at a fit gives, or gRPC's error."""
        messages = feed.messages()
        call: Any = None

        def sent() -> Iterator[pb.FitProjectionsRequest]:
            # In a thread of gRPC's, which takes a message when the one before it is on its way.
            yield from messages
            if feed.problem is not None:
                started.wait()
                call.cancel()

        started = threading.Event()
        call = self._stub.FitProjections(sent(), metadata=self._endpoint.metadata)
        started.set()
        try:
            for response in call:
                self._has_answered = True
                if response.HasField("result"):
                    bars.finish()
                    result: pb.FitResult = response.result
                    return result
                bars.show(response.progress)
        finally:
            call.cancel()
        raise ServerFault("the server ended the fit without a result: its log has more")
