"""The client for asyncio gives what the other one gives, and leaves the loop free."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
import ventral_client
from front import Front, Refusal
from servers import Server
from unary import assert_same
from ventral_client import Answer, AsyncClient, Client, Retries, request
from ventral_client.extraction import ExtractionFile
from ventral_client.groups import LEAST_IMAGES, MAXIMUM_IMAGES, Group
from ventral_client.transfer import Transfer

LAYERS = ["layer2", "fc"]


def test_calls_give_the_same(client: Client, server: Server, paths: list[Path], tmp_path: Path) -> None:
    """All of them, at the same time."""

    async def everything() -> None:
        async with AsyncClient(server.address, model="lc") as other:
            models, model, activations, classes, extracted = await asyncio.gather(
                other.models(),
                other.model(),
                other.activations(paths, LAYERS),
                other.classify(paths, top_k=2),
                other.extract(paths, LAYERS, tmp_path / "async.h5"),
            )
            assert models == client.models()
            assert model == client.model()
            assert_same(activations, client.activations(paths, LAYERS))
            assert [[p.index for p in found] for found in classes] == [
                [p.index for p in found] for found in client.classify(paths, top_k=2)
            ]
            assert extracted.read_bytes() == client.extract(paths, LAYERS, tmp_path / "sync.h5").read_bytes()
            answers = [answer async for answer in other.stream(paths, LAYERS, in_flight=3)]
            assert [answer.index for answer in answers] == list(range(len(paths)))

    asyncio.run(everything())


def test_a_stream_goes_on_when_the_server_was_killed_and_restarted(
    repository: Path, pixels: np.ndarray
) -> None:
    """With every image answered once."""

    async def stream() -> list[int]:
        found = []
        with Server(repository) as server:
            async with AsyncClient(server.address, model="lc") as client:
                images = (pixels[index % len(pixels)] for index in range(200))
                async for answer in client.stream(images, LAYERS, in_flight=16):
                    found.append(answer.index)
                    if answer.index == 70:
                        server.kill()
                        server.start()
        return found

    assert asyncio.run(stream()) == list(range(200))


class Watched(Sequence[Path]):
    """Images that remember in which threads they were taken."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """In none yet."""
        self._paths = paths
        self.threads: set[int] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths)

    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        """One, or some."""
        self.threads.add(threading.get_ident())
        if isinstance(index, slice):
            return self
        return self._paths[index]


def test_the_loop_neither_reads_nor_writes(
    server: Server, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor encodes: other threads do, whatever is asked for."""
    others: dict[str, set[int]] = {}

    def watch(owner: object, name: str) -> None:
        method = getattr(owner, name)

        def watched(*arguments: object, **keywords: object) -> object:
            others.setdefault(name, set()).add(threading.get_ident())
            return method(*arguments, **keywords)

        monkeypatch.setattr(owner, name, watched)

    for name in ("__init__", "add", "__exit__"):
        watch(ExtractionFile, name)
    watch(Group, "message")
    watch(request, "classify_request")
    watch(Transfer, "accept")
    watched = Watched(paths)

    async def everything() -> None:
        async with AsyncClient(server.address, model="lc") as client:
            await client.classify(watched)
            await client.extract(paths, LAYERS, tmp_path / "a.h5")
            await client.activations(watched, LAYERS)

    asyncio.run(everything())
    others["images"] = watched.threads
    assert len(others) == 7
    for name, threads in others.items():
        assert threading.get_ident() not in threads, name


def test_an_extraction_that_is_cancelled_leaves_a_file_that_goes_on(
    client: Client, server: Server, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to it when it is closed."""
    add, added = ExtractionFile.add, threading.Event()

    def add_and_tell(file: ExtractionFile, answer: Answer) -> None:
        add(file, answer)
        if answer.index == 5:
            added.set()

    async def cancelled() -> None:
        async with AsyncClient(server.address, model="lc") as other:
            extraction = asyncio.create_task(other.extract(paths, LAYERS, tmp_path / "a.h5"))
            assert await asyncio.to_thread(added.wait, 60)
            extraction.cancel()
            with pytest.raises(asyncio.CancelledError):
                await extraction

    with monkeypatch.context() as patch:
        patch.setattr(ExtractionFile, "add", add_and_tell)
        asyncio.run(cancelled())
    whole = client.extract(paths, LAYERS, tmp_path / "whole.h5")
    assert client.extract(paths, LAYERS, tmp_path / "a.h5").read_bytes() == whole.read_bytes()


def test_a_stream_that_is_left_ends(server: Server, pixels: np.ndarray) -> None:
    """And reads no further."""
    made = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal made
        while True:
            made += 1
            yield pixels[made % len(pixels)]

    async def leave() -> None:
        async with AsyncClient(server.address, model="lc") as client:
            answers = client.stream(images(), LAYERS, in_flight=16)
            await anext(answers)
            await answers.aclose()
            assert made <= 2 * (MAXIMUM_IMAGES + LEAST_IMAGES)
            assert (await client.model()).name == "lc"

    asyncio.run(leave())


def test_errors_and_repetitions_are_the_same(server: Server, paths: list[Path], tmp_path: Path) -> None:
    """Unknown layers, unreadable images, refusals."""
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    refused = 0

    def refuse(_: str, __: dict[str, str]) -> Refusal:
        nonlocal refused
        refused += 1
        return (grpc.StatusCode.UNAVAILABLE, "away", ()) if refused <= 2 else None

    async def errors() -> None:
        with Front(server.address, refuse) as front:
            async with AsyncClient(front.address, model="lc", retries=Retries(initial=0.01)) as client:
                with pytest.raises(ventral_client.UnknownLayer, match=r"it has: .*fc"):
                    await client.activations(paths, ["layer9"])
                assert refused == 3
                with pytest.raises(ventral_client.UnreadableStimulus, match=r"stimulus 24 .*bad\.png"):
                    await client.activations([*paths, bad], ["fc"])

    asyncio.run(errors())
