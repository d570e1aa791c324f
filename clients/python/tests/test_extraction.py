"""Extraction to disk: what is in the file, and what killing it leaves."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import ventral_client
from servers import Server
from ventral_client import Client, Options
from ventral_client.extraction import ExtractionFile

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
        found = {key: file.attrs[key] for key in ("model", "version", "checkpoint_digest", "weights")}
        assert found == {
            "model": "lc",
            "version": "1",
            "checkpoint_digest": model.checkpoint_digest,
            "weights": "fp32",
        }
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


def test_of_two_extractions_to_one_file_one_goes_on(
    client: Client, paths: list[Path], tmp_path: Path
) -> None:
    """Both have found no file; the other one must not put an unfinished file in the place of the first one's."""
    model, path = client.model(), tmp_path / "activations.h5"
    first, second = (ExtractionFile(path, model, paths, None, ["fc"], Options()) for _ in range(2))
    answers = list(client.stream(paths, ["fc"]))
    with first:
        first.add(answers[0])
        with second, pytest.raises(ventral_client.ExtractionMismatch, match="written by another program"):
            second.add(answers[0])
        for answer in answers[1:]:
            first.add(answer)
    assert list(tmp_path.iterdir()) == [path]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(
            file["activations"]["fc"], np.stack([answer.activations["fc"] for answer in answers])
        )


def test_without_links_too_one_goes_on(
    client: Client, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network drives."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = client.extract(paths, ["fc"], tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == [path]
    other = ExtractionFile(tmp_path / "b.h5", client.model(), paths, None, ["fc"], Options())
    (tmp_path / "b.h5.partial").touch()
    with pytest.raises(ventral_client.ExtractionMismatch, match="written by another program"):
        other.add(next(iter(client.stream(paths, ["fc"]))))


def test_a_file_with_its_final_name_is_complete(client: Client, paths: list[Path], tmp_path: Path) -> None:
    """Or it isn't taken for one."""
    path = client.extract(paths, ["fc"], tmp_path / "activations.h5")
    with h5py.File(path, "r+") as file:
        file["progress"][0] = 7
    with pytest.raises(ventral_client.ExtractionMismatch, match="of 7 of its 24 images: remove it"):
        client.extract(paths, ["fc"], path)


def test_rows_of_nan_are_for_those_who_want_them(client: Client, paths: list[Path], tmp_path: Path) -> None:
    """Also when the file is there already."""
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    stimuli = [*paths[:3], bad, *paths[3:]]
    path = client.extract(stimuli, ["fc"], tmp_path / "activations.h5", skip_unreadable=True)
    assert client.extract(stimuli, ["fc"], path, skip_unreadable=True) == path
    with pytest.raises(
        ventral_client.ExtractionMismatch, match=r"NaN for 1 images .*bad\.png: pass skip_unreadable=True"
    ):
        client.extract(stimuli, ["fc"], path)


def test_rounded_weights_are_another_network(
    client: Client, rounded: Path, paths: list[Path], tmp_path: Path
) -> None:
    """To files, too; those that don't say have weights that aren't rounded."""
    path = client.extract(paths, ["fc"], tmp_path / "activations.h5")
    with (
        Server(rounded) as server,
        Client(server.address) as other,
        pytest.raises(ventral_client.ExtractionMismatch, match=r"has weights fp32, and this .* fp16"),
    ):
        other.extract(paths, ["fc"], path)
    with h5py.File(path, "r+") as file:
        del file.attrs["weights"]
    assert client.extract(paths, ["fc"], path) == path


def test_what_can_not_be_written_is_said(client: Client, paths: list[Path], tmp_path: Path) -> None:
    """Before anything is asked for where that is known."""
    for path, layers, words in (
        (tmp_path / "nowhere" / "a.h5", ["fc"], "there is no folder .*nowhere: make it"),
        (tmp_path / "a.h5", ["fc", "layer1", "fc"], "layer `fc` is named twice"),
    ):
        with pytest.raises(ventral_client.InvalidRequest, match=words):
            client.extract(paths, layers, path)
    with pytest.raises(ventral_client.InvalidRequest, match="positions in its activations"):
        client.extract(paths, ["fc"], tmp_path / "a.h5", units={"fc": [-1]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="in other systems the folder doesn't exist")
def test_a_folder_that_can_not_be_written_to_is_named(client: Client, paths: list[Path]) -> None:
    """With the system's words."""
    with pytest.raises(ventral_client.UnwritableFile, match=r"/proc/a\.h5 can't be written: ") as caught:
        client.extract(paths, ["fc"], "/proc/a.h5")
    assert isinstance(caught.value, OSError)


def test_a_full_disk_is_one_line(server: Server, paths: list[Path], tmp_path: Path) -> None:
    """On the command line; what a file may have at most stands for what there is room for."""
    command = [
        sys.executable,
        "-m",
        "ventral_client",
        "extract",
        "--address",
        server.address,
        "--model",
        "lc",
    ]
    command += ["--layers", "layer1,fc", "--output", tmp_path / "a.h5", *paths]
    finished = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"ventral-client: {tmp_path / 'a.h5'} can't be written: ")
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert list(tmp_path.iterdir()) == []
