"""`ventral-client`, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import grpc
import h5py
import numpy as np
import pytest
from front import Front, Refusal
from servers import Server
from ventral_client import Client


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the program that the package installs."""
    program = Path(sys.executable).with_name("ventral-client")
    command = [program, *map(str, arguments)]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def lines(finished: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """What a program that succeeded has printed."""
    assert finished.returncode == 0, finished.stderr
    return [line.split("\t") for line in finished.stdout.splitlines()]


def test_models_and_layers_are_listed(client: Client, server: Server) -> None:
    """A line each."""
    assert lines(run("models", "--address", server.address)) == [["lc", "1"], ["other", "1"]]
    layers = lines(run("layers", "--model", "lc", VENTRAL_ADDRESS=server.address))
    assert [layer for layer, _ in layers] == client.model().layers
    assert ["fc", "10"] in layers and ["layer1", "4x32x32"] in layers


def test_images_and_folders_are_classified(client: Client, server: Server, paths: list[Path]) -> None:
    """Likeliest first, with probabilities."""
    found = lines(
        run("classify", "--address", server.address, "--model", "lc", "--top-k", "2", paths[0].parent)
    )
    expected = client.classify(paths, top_k=2)
    assert [(path, name) for path, name, _ in found] == [
        (str(path), prediction.name)
        for path, predictions in zip(paths, expected, strict=True)
        for prediction in predictions
    ]
    for (*_, shown), prediction in zip(found, (p for row in expected for p in row), strict=True):
        assert float(shown) == pytest.approx(prediction.probability, abs=1e-4)


def test_activations_are_extracted(client: Client, server: Server, paths: list[Path], tmp_path: Path) -> None:
    """To the file that is named, which is printed."""
    output = tmp_path / "activations.h5"
    common = ["--address", server.address, "--model", "lc", "--output", output]
    assert lines(run("extract", *common, "--layers", "layer1,fc", "--data-type", "float16", *paths)) == [
        [str(output)]
    ]
    expected = client.activations(paths, ["layer1", "fc"], data_type="float16")
    with h5py.File(output) as file:
        for layer, values in expected.items():
            np.testing.assert_array_equal(file["activations"][layer][:], values)
    refused = run("extract", *common, "--layers", "fc", *paths)
    assert refused.returncode == 1 and "pass another path" in refused.stderr


def test_errors_are_one_line_and_an_exit_code(server: Server, paths: list[Path], tmp_path: Path) -> None:
    """No server, no such layer, no such file, no token."""
    common = ["--address", server.address, "--model", "lc"]
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for arguments, words in (
        (["classify", *common, tmp_path / "nowhere.png"], "nowhere.png: No such file"),
        (["classify", *common, tmp_path], "there are no images"),
        (
            ["extract", *common, "--layers", "layer9", "--output", tmp_path / "a.h5", paths[0]],
            "it has: bn1, relu",
        ),
        (["models", "--address", "127.0.0.1:1"], "no server answers at 127.0.0.1:1"),
        (["models", "--token-file", tmp_path / "token", *common[:2]], "can't read"),
        (["models", "--token-file", binary, *common[:2]], "isn't a text file"),
        (["classify", *common, "--top-k", "5000000000", paths[0]], "top_k=5000000000"),
        (
            ["extract", *common, "--layers", "fc", "--output", tmp_path / "no" / "a.h5", paths[0]],
            "there is no folder",
        ),
        (
            ["extract", *common, "--layers", "fc,fc", "--output", tmp_path / "a.h5", paths[0]],
            "named twice",
        ),
        (["brain-report", "--paper", "--output-dir", binary], "File exists"),
    ):
        finished = run(*arguments)
        assert finished.returncode == 1, finished.stderr
        assert finished.stderr.startswith("ventral-client: ") and finished.stderr.count("\n") == 1
        assert words in finished.stderr
    assert run("classify").returncode == 2


def test_tokens_come_from_a_file_or_the_environment(server: Server, tmp_path: Path) -> None:
    """Not from the command line, which other users see."""

    def refuse(_: str, metadata: dict[str, str]) -> Refusal:
        is_right = metadata.get("authorization") == "Bearer right"
        return None if is_right else (grpc.StatusCode.UNAUTHENTICATED, "unknown token", ())

    token = tmp_path / "token"
    token.write_text("right\n")
    with Front(server.address, refuse) as front:
        command = ["models", "--address", front.address]
        assert lines(run(*command, VENTRAL_TOKEN="right"))
        assert lines(run(*command, "--token-file", token, VENTRAL_TOKEN="wrong"))
        refused = run(*command, VENTRAL_TOKEN="wrong")
        assert refused.returncode == 1 and "VENTRAL_TOKEN" in refused.stderr
