"""`trainer convert --to authors`: what it writes is what the authors' program wrote, by a reader that isn't ours."""

import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import programs
import torch_files
from golden import Network


def test_the_state_dict_is_the_authors(network: Network, checkpoint: Path, tmp_path: Path) -> None:
    """Names in their order, shapes, types and every bit."""
    converted = tmp_path / "authors.pt"
    programs.run("trainer", "convert", checkpoint, converted, "--to", "authors")
    found, expected = torch_files.load(converted), torch_files.load(network.checkpoint)
    assert list(found) == ["epoch", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict"]
    assert found["epoch"] == expected["epoch"]
    found, expected = found["model_state_dict"], expected["model_state_dict"]
    assert isinstance(found, OrderedDict)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def test_a_new_optimizer_has_the_fields_of_the_authors(
    network: Network, checkpoint: Path, tmp_path: Path
) -> None:
    """An imported network has no state to go on with; PyTorch's AdamW takes what is written."""
    converted = tmp_path / "authors.pt"
    programs.run("trainer", "convert", checkpoint, converted, "--to", "authors")
    found, expected = (
        torch_files.load(path)["optimizer_state_dict"] for path in (converted, network.checkpoint)
    )
    assert found["state"] == expected["state"] == {}
    (found,), (expected,) = found["param_groups"], expected["param_groups"]
    assert found == expected


def test_a_trained_network_takes_its_optimizer_along(tmp_path: Path) -> None:
    """Moments have their parameters' shapes; the schedule is PyTorch's `MultiStepLR`."""
    checkpoint, converted = tmp_path / "run.safetensors", tmp_path / "run.pt"
    network = "--architecture resnet-cifar --blocks 1,1 --width 2 --n-first-conv 1"
    run = "--epochs 4 --batch-size 2500 --learning-rate 0.004 --device cpu"
    programs.run("trainer", "train", "--output", checkpoint, *network.split(), *run.split())
    programs.run("trainer", "convert", checkpoint, converted, "--to", "authors")
    found = torch_files.load(converted)
    parameters = [
        tensor
        for name, tensor in found["model_state_dict"].items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    state, (group,) = found["optimizer_state_dict"]["state"], found["optimizer_state_dict"]["param_groups"]
    assert list(state) == group["params"] == list(range(len(parameters)))
    for moments, parameter in zip(state.values(), parameters, strict=True):
        assert moments["step"].dtype == np.float32
        assert moments["step"] == 16
        assert moments["exp_avg"].shape == moments["exp_avg_sq"].shape == parameter.shape
        assert (moments["exp_avg_sq"] >= 0).all()
    assert any(tensor.ndim == 6 for tensor in parameters)
    assert found["epoch"] == 4
    schedule = found["scheduler_state_dict"]
    assert schedule["milestones"] == Counter({2: 1, 3: 1})
    assert (schedule["last_epoch"], schedule["gamma"], schedule["base_lrs"]) == (4, 0.25, [0.004])
    assert schedule["_last_lr"] == [group["lr"]] == [0.004 / 16]


def test_storages_are_aligned_and_uncompressed(checkpoint: Path, tmp_path: Path) -> None:
    """So that `torch.load(mmap=True)` can use them where they lie."""
    converted = tmp_path / "authors.pt"
    programs.run("trainer", "convert", checkpoint, converted, "--to", "authors")
    content = converted.read_bytes()
    with zipfile.ZipFile(converted) as archive:
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            names = content[entry.header_offset + 26 : entry.header_offset + 30]
            start = entry.header_offset + 30 + sum(np.frombuffer(names, "<u2").tolist())
            assert content[start : start + entry.file_size] == archive.read(entry)
            if "/data/" in entry.filename:
                assert start % 64 == 0
