"""The client for asyncio gives what the other one gives, and leaves the loop free."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import ventral_client
from front import Front, Refusal
from servers import Server
from unary import assert_same
from ventral_client import AsyncClient, Client, Retries
from ventral_client.groups import LEAST_IMAGES, MAXIMUM_IMAGES

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
