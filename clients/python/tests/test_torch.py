"""torch tensors. torch itself is far larger than everything else here; what is used of it is its `Tensor`."""

from __future__ import annotations

import numpy as np
from unary import assert_same
from ventral_client import Client


class Tensor:
    """The part of `torch.Tensor` that the client uses, with its rules: no NumPy array while it needs gradients."""

    def __init__(self, values: np.ndarray, requires_grad: bool = False, device: str = "cpu") -> None:
        """A tensor of these values."""
        self._values, self._requires_grad, self._device = values, requires_grad, device

    def detach(self) -> Tensor:
        """Without gradients."""
        return Tensor(self._values, False, self._device)

    def cpu(self) -> Tensor:
        """In memory that NumPy reaches."""
        return Tensor(self._values, self._requires_grad)

    def float(self) -> Tensor:
        """As float32."""
        return Tensor(self._values.astype(np.float32), self._requires_grad, self._device)

    def is_floating_point(self) -> bool:
        """Whether it is float16, float32, …"""
        return self._values.dtype.kind == "f"

    def numpy(self) -> np.ndarray:
        """The values."""
        if self._requires_grad or self._device != "cpu":
            raise TypeError("can't be converted to NumPy")
        return self._values


Tensor.__module__ = "torch"


def test_tensors_are_images(client: Client, pixels: np.ndarray) -> None:
    """[N, C, H, W] with gradients on a GPU, single ones, pixels of another size."""
    inputs = np.moveaxis(pixels, -1, 1).astype(np.float32) / 255
    expected = client.activations(pixels, ["layer1", "fc"])
    assert_same(client.activations(Tensor(inputs, True, "cuda"), ["layer1", "fc"]), expected)
    assert_same(client.activations([Tensor(image) for image in inputs], ["layer1", "fc"]), expected)
    assert_same(client.activations(Tensor(np.moveaxis(pixels, -1, 1)), ["layer1", "fc"]), expected)
    other = np.random.default_rng(4).integers(0, 256, (3, 50, 40), np.uint8)
    same = client.activations([np.moveaxis(other, 0, -1)], ["fc"])
    assert_same(client.activations([Tensor(other)], ["fc"]), same)
