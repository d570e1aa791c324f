"""The examples of `docs/brainscore.md` run as they are written, but for the server's address and the benchmark."""

import re
import shutil
from pathlib import Path

import pytest
from population import Recording
from servers import Server
from test_scores import neural

GUIDE = Path(__file__).parents[4] / "docs" / "brainscore.md"


def test_the_examples_run(
    server: Server,
    recording: Recording,
    paths: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A score, an assembly, a plugin, and what the plugin does."""
    text = GUIDE.read_text("utf-8")
    examples = re.findall(r"^```(?:python|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(examples) == 4
    for image, path in zip(("boot.png", "bag.png"), paths, strict=False):
        shutil.copy(path, tmp_path / image)
    monkeypatch.chdir(tmp_path)
    names = {"benchmark": neural(recording, "ridge")}
    for example in examples:
        assert "localhost:50051" in example
        code = example.replace("localhost:50051", server.address)
        exec(code.replace('"MajajHong2015public.IT-pls"', "benchmark"), names)  # noqa: S102
    printed = capsys.readouterr().out
    assert "<xarray.Score ()>" in printed
    assert re.search(r"^\d+ lc-[0-9a-f]{16}$", printed, re.MULTILINE)
    assert (tmp_path / "brainscore_vision/models/ventral_lc/model.py").is_file()
    assert names["get_model"]().layer_model.region_layer_map["IT"] == "layer4"
