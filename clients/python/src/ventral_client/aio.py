"""The client for asyncio: the same calls, which wait without blocking."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import grpc
import grpc.aio

from . import request
from .answers import Answer, Prediction
from .base import ClientBase
from .client import CLASSIFIED_TOGETHER
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
from .groups import Group, groups
from .images import Image, Images, Stimulus, each, listed, stimuli
from .models import Model, ModelVersions, model
from .options import OptionArguments, Options
from .progress import bar
from .request import ActivationRequest, Handling
from .retries import Attempts
from .tensors import Array
from .v1 import ventral_pb2 as pb

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .extraction import ExtractionFile

T = TypeVar("T")
Arguments = ParamSpec("Arguments")

#: Seconds in which a server refuses a stream that it doesn't take; longer each time that it wasn't enough.
_SOON = 0.2


class AsyncClient(ClientBase[grpc.aio.Channel]):
    """A connection to a server, used in one event loop. Arguments are those of `ClientBase`, results those of `Client`."""

    async def models(self) -> list[ModelVersions]:
        """The models that are served, sorted by name."""
        answer = await self._call(self._stub.ListModels, pb.ListModelsRequest())
        return [ModelVersions(entry.name, list(entry.versions)) for entry in answer.models]

    async def model(self, name: str | None = None, version: str = "") -> Model:
        """A model: its layers, shapes and classes. `version`: the newest unless named."""
        chosen = name or await self._meant()
        return model(await self._call(self._stub.GetModel, pb.GetModelRequest(model=chosen, version=version)))

    async def activations(
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
        """Activations of all images in memory: see `Client.activations`."""
        wanted = request.activation_request(
            await self.model(model, version), images, layers, Options.of(**options), Handling(in_flight)
        )
        gathering = Gathering(wanted.layers, wanted.count)
        async with aclosing(self._answers(wanted, progress)) as answers:
            async for answer in answers:
                gathering.add(answer)
        return gathering.arrays()

    async def stream(
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
    ) -> AsyncGenerator[Answer, None]:
        """Activations, one image after the other: see `Client.stream`."""
        handling = Handling(in_flight, skip_unreadable)
        wanted = request.activation_request(
            await self.model(model, version), images, layers, Options.of(**options), handling
        )
        async with aclosing(self._answers(wanted, progress)) as answers:
            async for answer in answers:
                yield answer

    async def classify(
        self,
        images: Images,
        top_k: int = 5,
        *,
        model: str | None = None,
        version: str = "",
        **options: Unpack[OptionArguments],
    ) -> list[list[Prediction]]:
        """The likeliest classes of every image: see `Client.classify`."""
        chosen = Options.of(**options)
        described = await self.model(model, version)
        found: list[list[Prediction]] = []
        remaining = groups(stimuli(each(images), described.input_shape), CLASSIFIED_TOGETHER)

        def following() -> tuple[Group, pb.ClassifyRequest] | None:
            for group in remaining:
                return group, request.classify_request(described, group, top_k, chosen)
            return None

        while (asked := await _in_thread(following)) is not None:
            group, message = asked
            answer = await self._call(self._stub.Classify, message, group.stimuli)
            found.extend(request.predictions(entry) for entry in answer.classifications)
        return found

    async def extract(
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
        """Activations as an HDF5 file, which can be resumed: see `Client.extract`."""
        from .extraction import ExtractionFile

        chosen = Options.of(**options)
        described = await self.model(model, version)
        wanted_layers = described.check_layers(layers)

        def opened() -> tuple[Sequence[Image], ExtractionFile]:
            every = listed(images)
            file = ExtractionFile(
                path, described, every, names, wanted_layers, chosen, skip_unreadable=skip_unreadable
            )
            return every, file

        every, file = await _in_thread(opened)
        async with _left_in_thread(file):
            handling = Handling(in_flight, skip_unreadable, first=file.done)
            wanted = request.activation_request(described, every[file.done :], file.layers, chosen, handling)
            async with aclosing(self._answers(wanted, progress, file.done)) as answers:
                async for answer in answers:
                    await _in_thread(file.add, answer)
        return file.path

    async def fit_projections(
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
        """Has the server fit the principal components of layers: see `Client.fit_projections`."""
        wanted = fit_request(
            await self.model(model, version),
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
                    return fitted(wanted, await self._one_fit(feed, bars, attempts))
                except grpc.RpcError as error:
                    await asyncio.sleep(self._delay(attempts, error, feed.sent))

    async def projections(self, model: str | None = None, version: str = "") -> list[Projection]:
        """The projections that the server has of a model, sorted by name."""
        request = pb.ListProjectionsRequest(model=model or await self._meant(), version=version)
        answer = await self._call(self._stub.ListProjections, request)
        return [projection(entry) for entry in answer.projections]

    async def delete_projection(self, name: str, *, model: str | None = None, version: str = "") -> None:
        """Deletes a projection that was fitted or uploaded."""
        request = pb.DeleteProjectionRequest(model=model or await self._meant(), version=version, name=name)
        await self._call(self._stub.DeleteProjection, request)

    async def close(self) -> None:
        """Ends the connection, and what is under way."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        await self.close()

    @staticmethod
    def _open(endpoint: Endpoint) -> grpc.aio.Channel:
        if endpoint.credentials is None:
            return grpc.aio.insecure_channel(endpoint.address, endpoint.options)
        return grpc.aio.secure_channel(endpoint.address, endpoint.credentials, endpoint.options)

    async def _meant(self) -> str:
        """The model that is meant where a call names none."""
        return self._default_model or request.only_model(
            [entry.name for entry in await self.models()], self._endpoint.address
        )

    async def _call(
        self, method: Callable[..., Awaitable[T]], message: object, sent: Sequence[Stimulus] = ()
    ) -> T:
        attempts = Attempts(self._retries)
        while True:
            try:
                answer = await method(message, timeout=self._timeout, metadata=self._endpoint.metadata)
            except grpc.RpcError as error:
                await asyncio.sleep(self._delay(attempts, error, sent))
            else:
                self._has_answered = True
                return answer

    async def _answers(
        self, wanted: ActivationRequest, progress: bool, done: int = 0
    ) -> AsyncGenerator[Answer, None]:
        total = None if wanted.count is None else wanted.count + done
        shown = bar(progress, total, done)
        attempts = Attempts(self._retries)
        try:
            while True:
                try:
                    async with aclosing(self._one_stream(wanted, attempts)) as answers:
                        async for answer in answers:
                            yield answer
                            shown.update(1)
                    return
                except grpc.RpcError as error:
                    await asyncio.sleep(self._delay(attempts, error, wanted.transfer.sent))
        finally:
            shown.close()

    async def _one_stream(
        self, wanted: ActivationRequest, attempts: Attempts
    ) -> AsyncGenerator[Answer, None]:
        """What one stream answers; it ends when everything is answered, or raises gRPC's error."""
        transfer = wanted.transfer
        # What is in there is no more than is in flight.
        messages: asyncio.Queue[pb.StreamActivationsRequest] = asyncio.Queue()

        async def sent() -> AsyncIterator[pb.StreamActivationsRequest]:
            while True:
                yield await messages.get()

        start, *rest = await _in_thread(transfer.begin)
        call = self._stub.StreamActivations(sent(), metadata=self._endpoint.metadata)
        try:
            for part in ([start], rest):
                await _refused(call, attempts)
                for message in part:
                    messages.put_nowait(message)
            while True:
                for message in await _in_thread(
                    lambda: [group.message() for group in transfer.refill() if group.readable]
                ):
                    messages.put_nowait(message)
                for answer in transfer.settled():
                    yield answer
                if transfer.is_done():
                    return
                if not transfer.sent:
                    continue
                response = await call.read()
                if response is grpc.aio.EOF:
                    raise ServerFault(
                        "the server ended the stream before everything was answered: its log has more"
                    )
                self._has_answered = True
                attempts.progressed()
                for answer in await _in_thread(transfer.accept, response):
                    yield answer
        finally:
            call.cancel()

    async def _one_fit(self, feed: Feed, bars: FitBars, attempts: Attempts) -> pb.FitResult:
        """What one attempt at a fit gives, or gRPC's error."""
        call = self._stub.FitProjections(metadata=self._endpoint.metadata)
        messages = feed.messages()
        is_accepted = asyncio.Event()

        async def send() -> None:
            await _refused(call, attempts)
            while (message := await _in_thread(next, messages, None)) is not None:
                await call.write(message)
                # The first answer comes before any image. Where none comes, what else is sent would hide the status.
                await is_accepted.wait()
            if feed.problem is None:
                await call.done_writing()
            else:
                call.cancel()

        sending = asyncio.create_task(send())
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._has_answered = True
                is_accepted.set()
                if response.HasField("result"):
                    bars.finish()
                    result: pb.FitResult = response.result
                    return result
                bars.show(response.progress)
            raise ServerFault("the server ended the fit without a result: its log has more")
        except asyncio.CancelledError:
            if feed.problem is not None:
                raise feed.problem from None
            raise
        finally:
            call.cancel()
            sending.cancel()
            # What stopped the sending, the reading has met too.
            await asyncio.gather(sending, return_exceptions=True)


async def _refused(call: grpc.aio.Call, attempts: Attempts) -> None:
    """Waits a moment for the end of a call whose status was lost before: what is sent while it is refused hides it."""
    if attempts.lost_statuses:
        ended = asyncio.ensure_future(call.code())
        await asyncio.wait([ended], timeout=_SOON * 4 ** (attempts.lost_statuses - 1))
        ended.cancel()


async def _in_thread(
    work: Callable[Arguments, T], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> T:
    """Does something that takes time elsewhere: reading, encoding and writing would stop everything else in this loop.

    It is waited for even where whoever waits is cancelled, so that nothing is used by two threads at a time.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **keywords))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


@asynccontextmanager
async def _left_in_thread(file: ExtractionFile) -> AsyncGenerator[None, None]:
    """Leaves a file's context in another thread."""
    try:
        yield
    except BaseException as error:
        await _in_thread(file.__exit__, type(error), error, error.__traceback__)
        raise
    await _in_thread(file.__exit__, None, None, None)
