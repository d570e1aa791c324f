"""The code of docs/onnx.md does what the guide says."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Bundle
from golden import relative_error

GUIDE = Path(__file__).parents[2] / "docs" / "onnx.md"

#: The largest relative difference between a layer of the cut graph and of the whole one.
SAME = 1e-5


def guide() -> str:
    """All Python blocks of the guide, on the lines that they have there."""
    text = GUIDE.read_text()
    blocks = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
    code = ""
    for block in blocks.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code += "\n" * (line - code.count("\n")) + block[1]
    return code


@pytest.fixture
def names(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the guide's code defines, run where `models/lc/1` is the bundle."""
    script = tmp_path / "guide.py"
    script.write_text(guide())
    monkeypatch.chdir(bundle.repository.parent)
    return runpy.run_path(str(script))


def test_the_guide_loads_a_bundle_and_asks_for_layers(bundle: Bundle, names: dict[str, Any]) -> None:
    """Under the layers' names."""
    assert names["images"].shape[1:] == bundle.golden.input.shape[1:]
    assert names["layer1"].shape == (8, *bundle.golden.layers["layer1"].shape[1:])
    assert names["logits"].shape == (8, 10)


def test_the_guides_cut_gives_what_the_whole_graph_gives(bundle: Bundle, names: dict[str, Any]) -> None:
    """Computing less, with weights that stay where they are."""
    assert relative_error(names["early"].run(None, {"input": names["images"]})[0], names["layer1"]) <= SAME
    whole, images = bundle.session(), bundle.golden.input
    folder = str(bundle.path.parent)
    for layers in (["relu"], ["layer1", "layer2"], ["avgpool"]):
        cut: onnx.ModelProto = names["cut"](bundle.graph(), layers)
        assert len(cut.graph.node) < len(bundle.graph().graph.node)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        session = onnxruntime.InferenceSession(cut.SerializeToString(), options)
        expected = whole.run(layers, {"input": images})
        for found, values in zip(session.run(layers, {"input": images}), expected, strict=True):
            assert relative_error(found, values) <= SAME


def test_the_guides_cut_file_gives_the_same(bundle: Bundle, names: dict[str, Any]) -> None:
    """A file beside the data."""
    path = bundle.path.with_name("layer1.onnx")
    assert path.is_file()
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": bundle.golden.input})[0]
    assert relative_error(found, bundle.session().run(["layer1"], {"input": bundle.golden.input})[0]) <= SAME


def test_the_guide_reads_the_manifest(bundle: Bundle, names: dict[str, Any]) -> None:
    """And no verification before there was one."""
    manifest = names["manifest"]
    assert [layer["name"] for layer in manifest["layers"]] == [
        out.name for out in bundle.graph().graph.output
    ]
    assert names["verification"] is None
    assert np.prod(manifest["layers"][-1]["shape"]) == 10
