"""A server, running on free ports."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import programs

#: Where `cargo xtask setup` puts the library, which cargo names to programs that it runs.
LIBRARY = Path(__file__).parents[2] / "target" / "native" / "onnxruntime" / "libonnxruntime.so"


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    http: str
    """`host:port`"""
    grpc: str
    """`host:port`"""
    repository: Path
    process: subprocess.Popen[str]


@contextmanager
def serve(repository: Path, *options: str) -> Iterator[Server]:
    """Serves a model repository on the CPU, until the context ends."""
    command = [programs.folder() / "server", "--models", repository, "--execution-provider", "cpu", *options]
    command += ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    environment = {"ORT_DYLIB_PATH": str(LIBRARY)} | os.environ
    with subprocess.Popen(
        [str(argument) for argument in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            addresses = [process.stdout.readline().rpartition("http://")[2].strip() for _ in range(2)]
            assert all(addresses), "the server ended before it listened"
            yield Server(*addresses, repository, process)
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0, f"the server ended with exit code {process.returncode}"


def publish(bundle: Path, repository: Path, model: str, version: int = 1) -> Path:
    """Copies a bundle into a repository, where it appears whole."""
    folder = repository / model
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".partial"
    shutil.copytree(bundle, partial)
    return partial.rename(folder / str(version))
