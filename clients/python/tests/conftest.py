"""What the client's tests share: a small network, a server of it, images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import programs
import pytest
from servers import Server
from ventral_client import Client

CLASSES = [f"class {index}" for index in range(10)]
SIZE = 32


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the untrained network `lc`, and another one `other`."""
    folder = tmp_path_factory.mktemp("network")
    repository = folder / "models"
    names = folder / "classes.txt"
    names.write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    for seed, model in enumerate(("lc", "other"), 1):
        checkpoint = folder / f"{model}.safetensors"
        network = ["--architecture", "resnet-cifar", "--blocks", "1,1", "--width", "4", "--classes", "10"]
        data = ["--input-size", str(SIZE), "--preprocessing", "unit-range", "--class-names", names]
        programs.run(
            "trainer", "init", "--output", checkpoint, *network, *data, "--seed", str(seed), "--device", "cpu"
        )
        programs.run("exporter", "export", checkpoint, "--repository", repository, "--model", model)
    return repository


@pytest.fixture(scope="session")
def rounded(repository: Path) -> Path:
    """A model repository with the network `lc` of the same checkpoint, and weights of half precision."""
    checkpoint, folder = repository.parent / "lc.safetensors", repository.parent / "rounded"
    programs.run(
        "exporter", "export", checkpoint, "--repository", folder, "--model", "lc", "--weights", "fp16"
    )
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    """A server that no test ends."""
    with Server(repository) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of that server, for the model `lc`."""
    with Client(server.address, model="lc") as client:
        yield client


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """24 images of the network's size, uint8 `[N, H, W, C]`."""
    return np.random.default_rng(1).integers(0, 256, (24, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """24 PNG files of another size."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(2)
    paths = [folder / f"{index:02}.png" for index in range(24)]
    for path in paths:
        PIL.Image.fromarray(generator.integers(0, 256, (40, 48, 3), np.uint8)).save(path)
    return paths
