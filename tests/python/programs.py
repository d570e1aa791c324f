"""Ventral's programs, run as a user runs them."""

import os
import subprocess
from pathlib import Path

VARIABLE = "VENTRAL_PROGRAMS"
NEEDED = ("trainer", "exporter", "server")


def folder() -> Path:
    """The folder of the built programs, which the environment names.

    Raises:
        ValueError: Where the environment names none, or one that lacks programs.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        message = f"{VARIABLE} is not set: `cargo xtask test` builds the programs, sets it to their folder and runs this"
        raise ValueError(message)
    path = Path(named).absolute()
    missing = [name for name in NEEDED if not (path / name).is_file()]
    if missing:
        message = f"{VARIABLE} is {named}, where there is no {' and no '.join(missing)}: `cargo xtask test` builds them"
        raise ValueError(message)
    return path


def run(name: str, *arguments: str | Path) -> str:
    """Runs a program that is expected to succeed; returns its standard output."""
    command = [str(folder() / name), *map(str, arguments)]
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{name}: exit code {finished.returncode}\n{finished.stderr}"
    return finished.stdout
