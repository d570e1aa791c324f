"""Extraction to disk: what is in the file, and what killing it leaves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import ventral_client
from servers import Server
from ventral_client import Client

LAYERS = ["layer1", "fc"]

#: Extracts, and kills itself when so many images have been written.
KILLED = """
import os, signal, sys
from pathlib import Path
from ventral_client import Client, extraction

address, output, images, end = sys.argv[1], sys.argv[2], sorted(Path(sys.argv[3]).iterdir()), int(sys.argv[4])
extraction.SAVED_EVERY = float(sys.argv[5])
add = extraction.ExtractionFile.add

def add_and_end(file, answer):
    add(file, answer)
    if answer.index == end:
        os.kill(os.getpid(), signal.SIGKILL)

extraction.ExtractionFile.add = add_and_end
with Client(address, model="lc") as client:
    client.extract(images, ["layer1", "fc"], output, skip_unreadable=True)
"""


def test_a_file_holds_what_the_call_gives(client: Client, paths: list[Path], tmp_path: Path) -> None:
    """Values, names, and what they are of."""
    path = client.extract(paths, LAYERS, tmp_path / "activations.h5", progress=True)
    assert path == tmp_path / "activations.h5"
    assert sorted(tmp_path.iterdir()) == [path]
    model = client.model()
    expected = client.activations(paths, LAYERS)
    with h5py.File(path) as file:
        assert sorted(file["activations"]) == sorted(LAYERS)
        for layer, values in expected.items():
            np.testing.assert_array_equal(file["activations"][layer][:], values)
        assert file["stimuli"].asstr()[:].tolist() == [str(path) for path in paths]
        assert file["readable"][:].all()
        assert file["progress"][:].tolist() == [len(paths)]
        found = {key: file.attrs[key] for key in ("model", "version", "checkpoint_digest")}
        assert found == {"model": "lc", "version": "1", "checkpoint_digest": model.checkpoint_digest}
        assert json.loads(file.attrs["layers"]) == LAYERS


@pytest.mark.parametrize("every", [0.0, 1000.0], ids=["saved always", "saved never"])
def test_a_killed_extraction_goes_on_and_gives_the_same_file(
    client: Client, server: Server, paths: list[Path], tmp_path: Path, every: float
) -> None:
    """Killed again and again, until nothing is left to kill; the second image of all can't be read."""
    images = tmp_path / "images"
    images.mkdir()
    for path in paths:
        (images / path.name).symlink_to(path)
    (images / "00a.png").write_text("no image")
    stimuli = sorted(images.iterdir())
    whole = client.extract(stimuli, LAYERS, tmp_path / "whole.h5", skip_unreadable=True)
    path = tmp_path / "killed.h5"
    for end in (0, 1, 9, 10, len(stimuli) - 2, len(stimuli) - 1):
        command = [sys.executable, "-c", KILLED, server.address, path, images, str(end), str(every)]
        finished = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert finished.returncode == -signal.SIGKILL, finished.stderr
        assert not path.exists()
        with h5py.File(f"{path}.partial") as file:
            assert file["progress"][0] == (end + 1 if every == 0 else 0)
    assert client.extract(stimuli, LAYERS, path, skip_unreadable=True) == path
    assert path.read_bytes() == whole.read_bytes()
    with h5py.File(path) as file:
        assert np.isnan(file["activations"]["fc"][1]).all()
        assert file["readable"][:].tolist() == [index != 1 for index in range(len(stimuli))]


def test_an_error_leaves_what_came_before_it(client: Client, paths: list[Path], tmp_path: Path) -> None:
    """The extraction goes on there, with the right positions."""
    late = tmp_path / "late.png"
    stimuli = [*paths[:10], late, *paths[10:]]
    path = tmp_path / "activations.h5"
    for _ in range(2):
        with pytest.raises(ventral_client.UnreadableStimulus, match=r"stimulus 10 .*late\.png: No such file"):
            client.extract(stimuli, LAYERS, path)
        with h5py.File(f"{path}.partial") as file:
            assert file["progress"][0] == 10
    late.write_bytes(paths[0].read_bytes())
    client.extract(stimuli, LAYERS, path)
    expected = client.activations(stimuli, LAYERS)
    with h5py.File(path) as file:
        for layer, values in expected.items():
            np.testing.assert_array_equal(file["activations"][layer][:], values)


def test_a_complete_file_is_not_extracted_again(repository: Path, paths: list[Path], tmp_path: Path) -> None:
    """Nor written to."""
    path = tmp_path / "activations.h5"
    with Server(repository) as server, Client(server.address, model="lc") as client:
        client.extract(paths, LAYERS, path)
        os.utime(path, (1, 1))
        client.extract(paths, LAYERS, path)
        assert path.stat().st_mtime == 1


def test_files_of_something_else_are_refused(client: Client, paths: list[Path], tmp_path: Path) -> None:
    """Other images, layers, options, another network, no HDF5 file; the message says what differs."""
    path = tmp_path / "activations.h5"
    client.extract(paths, LAYERS, path)
    whole = path.read_bytes()
    for images, layers, options, words in (
        (paths[::-1], LAYERS, {}, "first that differs is image 0"),
        (paths[:20], LAYERS, {}, "24 images and this extraction of 20, .* image 20"),
        (paths, ["fc"], {}, "has layers"),
        (paths, LAYERS, {"pooling": "spatial_mean"}, "has options"),
        (paths, LAYERS, {"model": "other"}, "has model lc, and this extraction other"),
    ):
        with pytest.raises(ventral_client.ExtractionMismatch, match=f"{words}.*pass another path"):
            client.extract(images, layers, path, **options)
    # What has no effect on values may differ.
    client.extract(paths, LAYERS, path, compression="zstd", priority="interactive")
    assert path.read_bytes() == whole
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with pytest.raises(ventral_client.ExtractionMismatch, match="can't be opened"):
        client.extract(paths, LAYERS, text)
    with pytest.raises(ventral_client.InvalidRequest, match="2 names for 24"):
        client.extract(paths, LAYERS, tmp_path / "new.h5", names=["a", "b"])
    with pytest.raises(ventral_client.InvalidRequest, match="none of the images can be read"):
        client.extract([tmp_path / "nowhere"], LAYERS, tmp_path / "new.h5", skip_unreadable=True)


def test_arrays_are_told_apart_by_their_pixels(client: Client, pixels: np.ndarray, tmp_path: Path) -> None:
    """As they have no paths; float16 stays what it is if that is asked for."""
    path = client.extract(pixels, ["fc"], tmp_path / "a.h5", data_type="float16", widen=False)
    with h5py.File(path) as file:
        assert file["activations"]["fc"].dtype == np.float16
        assert len(set(file["stimuli"].asstr()[:])) == len(pixels)
    with pytest.raises(ventral_client.ExtractionMismatch, match="image 0"):
        client.extract(pixels[::-1], ["fc"], path, data_type="float16", widen=False)
    named = client.extract(pixels[:2], ["fc"], tmp_path / "b.h5", names=["left", "right"])
    with h5py.File(named) as file:
        assert file["stimuli"].asstr()[:].tolist() == ["left", "right"]
