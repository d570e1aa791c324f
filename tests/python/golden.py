"""The authors' networks and activations, from tests/golden."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FOLDER = Path(__file__).parents[1] / "golden"

#: The largest error as a fraction of a layer's largest magnitude.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Network:
    """A checkpoint of the authors' and what `trainer import` has to be told about it."""

    name: str
    import_options: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, a pickle of PyTorch's."""
        return FOLDER / f"{self.name}.pt"


NETWORKS = (
    Network("conv_resnet18_w4_s64", ("--input-size", "64")),
    Network("lc_resnet18_w2_s64"),
    Network("lc1conv_resnet_cifar_w4_s16"),
)


@dataclass(frozen=True)
class Golden:
    """What the authors' implementation computed."""

    input: np.ndarray
    """The images, `[N, C, H, W]`."""
    layers: dict[str, np.ndarray]
    """The activations of every layer, under the names that users know."""


def read(network: Network) -> Golden:
    """Reads what the authors' implementation computed.

    What follows the first ReLU of the network and of a block wasn't recorded: it is the positive part of the BatchNorm
    before it.
    """
    tensors = load_file(FOLDER / f"{network.name}.activations.safetensors")
    layers = {}
    for name, values in tensors.items():
        if not name.startswith("eval."):
            continue
        # The shortcut's BatchNorm is `downsample`, the logits are `fc`.
        layer = name.removeprefix("eval.")
        layer = (
            "fc"
            if layer == "logits"
            else layer.removesuffix(".1")
            if layer.endswith("downsample.1")
            else layer
        )
        layers[layer] = values
        if layer == "bn1":
            layers["relu"] = np.maximum(values, 0)
        elif layer.endswith(".bn1"):
            layers[layer.removesuffix("bn1") + "relu1"] = np.maximum(values, 0)
    return Golden(tensors["input"], layers)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference as a fraction of the largest magnitude that is expected."""
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / np.abs(expected).max()) if difference else 0.0


def relative_errors(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The relative error of every layer that was found."""
    return {layer: relative_error(values, expected[layer]) for layer, values in found.items()}


def worst(errors: Mapping[str, float]) -> str:
    """The layer with the largest relative error, and the error, in words."""
    layer = max(errors, key=errors.__getitem__)
    return f"{len(errors)} layers, worst {layer} {errors[layer]:.1e}"
