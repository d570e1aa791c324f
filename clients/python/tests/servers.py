"""A server that can be killed and started again at the same address."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import programs

if TYPE_CHECKING:
    from typing_extensions import Self

#: Where `cargo xtask setup` puts the library, which cargo names to programs that it runs.
LIBRARY = Path(__file__).parents[3] / "target" / "native" / "onnxruntime" / "libonnxruntime.so"


class Server:
    """A server of a model repository on the CPU; a context that ends it."""

    def __init__(self, repository: Path, *options: str) -> None:
        """Starts it on a free port."""
        self.repository = repository
        self._options = options
        self._address = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def address(self) -> str:
        """`host:port`, also after it was killed."""
        return self._address

    def start(self) -> None:
        """Starts it, at its address."""
        command = [programs.folder() / "server", "--models", self.repository, "--execution-provider", "cpu"]
        # What one test has fitted is nothing to others.
        command += ["--fitting-keep", "false"]
        command += ["--http", "127.0.0.1:0", "--grpc", self._address, *self._options]
        self._process = subprocess.Popen(
            [str(argument) for argument in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={"ORT_DYLIB_PATH": str(LIBRARY)} | os.environ,
        )
        for line in self._process.stdout:
            if line.startswith("grpc"):
                self._address = line.rpartition("://")[2].strip()
                return
        raise AssertionError(f"the server ended with exit code {self._process.wait()} before it listened")

    @property
    def process_id(self) -> int:
        """Of the running program."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Ends it without a word."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self._end(signal.SIGTERM)
