"""A LitServe server of an exported network, which batches requests.

LitServe reads JSON and forms, not a body that is an image; a string of JSON is the cheaper of the two.
"""

import argparse

import litserve
import numpy as np
from network import Network


class Classifier(litserve.LitAPI):
    """The bundle's classes."""

    def __init__(self, bundle: str, maximum_batch: int) -> None:
        """Batch up to so many images, of those that have come in."""
        super().__init__(max_batch_size=maximum_batch, batch_timeout=0.001, api_path="/classify")
        self._bundle = bundle

    def setup(self, device: str) -> None:
        """Open the bundle, in the process that computes."""
        self._network = Network(self._bundle, threads=1)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """Decode the image in a request, written in hexadecimal digits."""
        return Network.decode(bytes.fromhex(request["image"]))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Put images together."""
        return np.stack(inputs)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        """Compute a batch."""
        return self._network.logits(batch)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Take images apart."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, object]:
        """Write an answer."""
        return self._network.answer(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Classifier(arguments.bundle, maximum_batch=64),
        accelerator="cpu",
        devices=1,
        workers_per_device=arguments.workers,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=arguments.workers,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
