"""The unary call, made with the stubs alone: what the client's results are compared with."""

from collections.abc import Sequence

import grpc
import numpy as np
from ventral_client.v1 import ventral_pb2 as pb
from ventral_client.v1 import ventral_pb2_grpc

#: A single image is computed in another order than several: at most this much of a layer's greatest value apart.
TOLERANCE = 1e-5


def get_activations(
    address: str, images: Sequence[bytes], layers: Sequence[str], options: pb.ActivationOptions | None = None
) -> dict[str, np.ndarray]:
    """float32 activations of encoded images."""
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        request = pb.GetActivationsRequest(
            model="lc", layers=layers, images=pb.EncodedImages(images=images), options=options
        )
        answer = ventral_pb2_grpc.VentralStub(channel).GetActivations(request)
    return {t.name: np.frombuffer(t.data, "<f4").reshape(t.shape) for t in answer.activations}


def assert_same(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = TOLERANCE
) -> None:
    """Checks layers, their order, shapes, and values but for rounding."""
    assert list(found) == list(expected)
    for layer, values in expected.items():
        assert found[layer].shape == values.shape, layer
        assert found[layer].dtype == np.float32, layer
        error = np.abs(found[layer] - values).max() / np.abs(values).max()
        assert error <= tolerance, f"{layer}: {error}"
