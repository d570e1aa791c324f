"""The example of docs/representational-similarity.md, run as it stands there."""

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from servers import Server
from ventral_client import Client

GUIDE = Path(__file__).parents[3] / "docs" / "representational-similarity.md"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="rsatoolbox has no wheels for this machine")
def test_rdms_of_remote_layers(server: Server, client: Client, paths: list[Path], tmp_path: Path) -> None:
    """They are correlation distances of the client's activations."""
    from rsatoolbox.rdm import load_rdm

    (example,) = re.findall(
        r"^```python\n(from pathlib.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert "localhost:50051" in example
    script = tmp_path / "example.py"
    script.write_text(example.replace("localhost:50051", server.address), encoding="utf-8")
    shutil.copytree(paths[0].parent, tmp_path / "stimuli")
    finished = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr

    layers = ["layer1", "layer2", "fc"]
    rdms = load_rdm(str(tmp_path / "lc-rdms.hdf5"), file_type="hdf5")
    assert list(rdms.rdm_descriptors["layer"]) == layers
    assert list(rdms.pattern_descriptors["stimulus"]) == [path.name for path in paths]
    for matrix, values in zip(rdms.get_matrices(), client.activations(paths, layers).values(), strict=True):
        expected = 1 - np.corrcoef(values.reshape(len(paths), -1).astype(np.float64))
        np.testing.assert_allclose(matrix, expected, atol=1e-5)
