"""`trainer train --tensorboard`: event files as TensorBoard itself reads them."""

import json
from pathlib import Path

import programs
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

NETWORK = "--architecture resnet-cifar --blocks 1 --width 2"
RUN = "--batch-size 2500 --epochs 2 --sleep-every 2 --device cpu --threads 1"
#: Steps an epoch: there are 10,000 images.
STEPS = 4


def train(folder: Path, *options: str) -> None:
    """Trains a small network on the images that the program carries."""
    output, events = folder / "run.safetensors", folder / "events"
    programs.run(
        "trainer",
        "train",
        "--output",
        output,
        "--tensorboard",
        events,
        *NETWORK.split(),
        *RUN.split(),
        *options,
    )


def log(folder: Path) -> list[dict]:
    """The lines of the log."""
    lines = (folder / "run.log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar's steps and values, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(folder / "events")).Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def assert_shows(found: dict[str, list[tuple[int, float]]], lines: list[dict]) -> None:
    """Checks that TensorBoard shows what the log says."""
    steps = [line for line in lines if line["event"] == "step"]
    epochs = [line for line in lines if line["event"] == "epoch"]
    expected = {
        f"train/{figure}": [((line["epoch"] - 1) * STEPS + line["step"], line[figure]) for line in steps]
        for figure in ("loss", "top1", "top5", "learning_rate", "images_per_second")
    }
    expected |= {
        f"test/{figure}": [(line["epoch"] * STEPS, line["test"][figure]) for line in epochs]
        for figure in ("top1", "top5", "loss")
    }
    expected |= {
        f"weight_snr/{layer}": [(line["epoch"] * STEPS, line["weight_snr"][layer]) for line in epochs]
        for layer in epochs[0]["weight_snr"]
    }
    expected |= {
        f"memory/{name}": [(line["epoch"] * STEPS, line[figure]) for line in epochs]
        for name, figure in (("resident", "memory"), ("peak", "peak_memory"))
    }
    expected["epoch/images_per_second"] = [
        (line["epoch"] * STEPS, line["images_per_second"]) for line in epochs
    ]
    assert found.keys() == expected.keys()
    for tag, figures in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in figures], tag
        values = [value for _, value in figures]
        assert [value for _, value in found[tag]] == pytest.approx(values, rel=1e-6), tag


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    """Every figure at its step; of the whole run, and after it has been resumed."""
    train(tmp_path)
    whole = log(tmp_path)
    assert_shows(scalars(tmp_path), whole)
    # As if the last epoch's figures had been written twice: the run is told to go on, though it is complete.
    train(tmp_path, "--resume")
    assert log(tmp_path) == whole
    assert_shows(scalars(tmp_path), whole)


def test_a_run_that_starts_anew_replaces_what_was_shown(tmp_path: Path) -> None:
    """In the same folder, where the files of the first are still."""
    train(tmp_path)
    train(tmp_path, "--seed", "2")
    assert len(list((tmp_path / "events").iterdir())) == 2
    assert_shows(scalars(tmp_path), log(tmp_path))


def test_files_begin_as_tensorboards_own(tmp_path: Path) -> None:
    """With the version, then the step from which earlier files no longer count."""
    train(tmp_path)
    (path,) = (tmp_path / "events").iterdir()
    events = list(EventFileLoader(str(path)).Load())
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].session_log.status, events[1].step) == (events[1].session_log.START, 1)
    assert all(event.summary.value for event in events[2:])
    assert all(event.wall_time > 0 for event in events)
