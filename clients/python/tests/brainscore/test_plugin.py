"""The plugin's folder, which Brain-Score finds by scanning its own package."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import brainscore_vision
import pytest
import ventral_client
from servers import Server
from ventral_client import Tls
from ventral_client.brainscore import commitment, remote_activations_model, write_plugin


def library(folder: Path) -> Path:
    """The installed Brain-Score by links, with a folder of models that can be written to."""
    installed = Path(brainscore_vision.__file__).parent
    linked = folder / "brainscore_vision"
    (linked / "models").mkdir(parents=True)
    for entry in installed.iterdir():
        if entry.name != "models":
            (linked / entry.name).symlink_to(entry)
    (linked / "models" / "__init__.py").touch()
    return folder


def test_brain_score_loads_the_plugin(server: Server, tmp_path: Path) -> None:
    """By its identifier; its own test passes; and a token isn't in it."""
    root = library(tmp_path / "library")
    plugin = root / "brainscore_vision" / "models" / "ventral_lc"
    written = write_plugin(
        plugin,
        server.address,
        "lc",
        identifier="ventral-lc",
        layers=["layer1", "layer2", "layer3", "layer4"],
        region_layer_map={"V1": "layer1", "V2": "layer2", "V4": ["layer2.1"], "IT": "layer4"},
        behavioral_readout_layer="avgpool",
    )
    assert written == plugin
    assert sorted(file.name for file in plugin.iterdir()) == [
        "__init__.py",
        "model.py",
        "setup.py",
        "test.py",
    ]
    assert not any("token=" in file.read_text(encoding="utf-8") for file in plugin.iterdir())
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    check = (
        "import brainscore_vision\n"
        "model = brainscore_vision.load_model('ventral-lc')\n"
        "print(brainscore_vision.__file__, model.identifier, model.layer_model.region_layer_map, model.layers)\n"
    )
    for command in (
        [sys.executable, "-c", check],
        [sys.executable, "-m", "pytest", "-q", plugin / "test.py"],
    ):
        finished = subprocess.run(
            [str(part) for part in command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        if command[1] == "-c":
            assert str(root) in finished.stdout and " ventral-lc-" in finished.stdout
            assert "{'V1': 'layer1', 'V2': 'layer2', 'V4': ['layer2.1'], 'IT': 'layer4'}" in finished.stdout


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """And names that Brain-Score couldn't find are refused."""
    (tmp_path / "mine.py").touch()
    with pytest.raises(ventral_client.InvalidRequest, match="not empty"):
        write_plugin(tmp_path, "localhost:50051", "lc")
    with pytest.raises(ventral_client.InvalidRequest, match="identifiers are letters"):
        write_plugin(tmp_path / "new", "localhost:50051", "lc", identifier="it's mine")
    assert not (tmp_path / "new").exists()


def test_every_argument_of_a_commitment_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those that are as usual, tokens, and what isn't text."""
    monkeypatch.chdir(tmp_path)
    arguments = {
        "version": "3",
        "layers": ["layer1"],
        "region_layer_map": {"V1": "layer1"},
        "behavioral_readout_layer": "layer1",
        "visual_degrees": 6,
        "imagenet_classes": True,
        "tls": "authority.pem",
        "data_type": "float32",
        "batch_size": 8,
        "in_flight": 4,
        "pca_images": ["a.png", Path("b.png")],
        "pca_components": 50,
    }
    known = {
        **inspect.signature(commitment).parameters,
        **inspect.signature(remote_activations_model).parameters,
    }
    left_out = {"address", "model", "options", "token", "retries", "region_benchmarks"}
    assert set(arguments) | {"identifier"} == set(known) - left_out
    written = write_plugin(tmp_path / "all", "server:1", "lc", **arguments)
    calls: list[dict[str, object]] = []
    code = (
        (written / "model.py")
        .read_text("utf-8")
        .replace("from ventral_client.brainscore import commitment", "")
    )
    namespace = {"commitment": lambda *_, **keywords: calls.append(keywords)}
    exec(code + "\nget_model()", namespace)  # noqa: S102
    files = {"tls": str(tmp_path / "authority.pem"), "pca_images": [str(tmp_path / f"{n}.png") for n in "ab"]}
    assert calls == [{"identifier": "lc", **arguments, **files}]
    usual = (write_plugin(tmp_path / "few", "server:1", "lc") / "model.py").read_text("utf-8")
    assert usual.count("=") == usual.count("identifier=") + usual.count("visual_degrees=") == 2
    with pytest.raises(ventral_client.InvalidRequest, match="isn't the place for a key"):
        write_plugin(tmp_path / "keys", "server:1", "lc", tls=Tls(key="key.pem"))
