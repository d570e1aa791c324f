"""Networks with torchvision's names, from `torch.save` and from safetensors, against ResNet-18 in NumPy."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import programs
import pytest
import resnet
import torch_files
from golden import relative_error
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

#: Sums of thousands of float32 products differ by so much from those of float64, as a fraction of a layer's largest value.
TOLERANCE = 1e-5


def as_pickle(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """As torchvision's `.pth` files are written."""
    torch_files.save(path, tensors)


def as_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """As PyTorch users write safetensors files."""
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """A small ResNet-18 for ImageNet's classes."""
    return resnet.state_dict(width=8, classes=1000, generator=np.random.default_rng(1))


@pytest.mark.parametrize("write", [as_pickle, as_safetensors])
def test_every_layer_is_computed_as_numpy_does(
    write: Callable, tensors: dict[str, np.ndarray], tmp_path: Path, report: Callable[[str], None]
) -> None:
    """The file's name says nothing about its format."""
    source, checkpoint = tmp_path / "resnet18.weights", tmp_path / "resnet18.safetensors"
    recording = tmp_path / "resnet18.activations.safetensors"
    write(source, tensors)
    programs.run("trainer", "import", source, "--output", checkpoint, "--input-size", "64")
    programs.run("trainer", "record", checkpoint, "--output", recording, "--images", "3", "--device", "cpu")
    found = load_file(recording)
    expected = resnet.activations(tensors, found.pop("input"))
    assert found.keys() == expected.keys()
    errors = {name: relative_error(values, expected[name]) for name, values in found.items()}
    layer = max(errors, key=errors.__getitem__)
    report(
        f"torchvision's ResNet-18, {write.__name__}: {len(errors)} layers, worst {layer} {errors[layer]:.1e}"
    )
    assert errors[layer] <= TOLERANCE


def test_imagenet_is_recognised(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    """A convolutional network of a thousand classes sees 224 pixels, preprocessed as torchvision does."""
    source, checkpoint = tmp_path / "resnet18.pth", tmp_path / "resnet18.safetensors"
    as_pickle(source, tensors)
    said = programs.run("trainer", "import", source, "--output", checkpoint)
    assert "224x224 input, 1000 classes" in said
    with safe_open(checkpoint, "np") as file:
        header = json.loads(file.metadata()["ventral"])
        assert all(np.array_equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
        assert file.get_tensor("bn1.num_batches_tracked") == 0
    preprocessing = header["preprocessing"]
    assert preprocessing["resize"] == {"kind": "short-side", "size": 256}
    assert np.allclose(preprocessing["mean"], [0.485, 0.456, 0.406])
    assert np.allclose(preprocessing["std"], [0.229, 0.224, 0.225])
