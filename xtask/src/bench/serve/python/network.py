"""An exported network in ONNX Runtime, as the baselines' servers use it: an encoded image in, the likeliest classes out.

The images are grey and of the network's input size, so that they need no resizing; values are scaled to 0..1.
"""

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

TOP_K = 5


class Network:
    """A bundle's readout."""

    def __init__(self, bundle: str, threads: int) -> None:
        """Open the bundle in a folder."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = Path(bundle) / "model.onnx"
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        manifest = json.loads(metadata["ventral"])
        self._names = manifest.get("class_names") or []

    @staticmethod
    def decode(image: bytes) -> np.ndarray:
        """One image as `[C, H, W]`."""
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L"), dtype=np.float32)
        return (pixels / np.float32(255))[np.newaxis]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits `[N, classes]` of images `[N, C, H, W]`."""
        return self._session.run(["fc"], {"input": images})[0]

    def answer(self, logits: np.ndarray) -> dict[str, object]:
        """What a client gets for one image's logits."""
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        best = np.argsort(-probabilities)[:TOP_K]
        return {"predictions": [self._prediction(int(index), probabilities) for index in best]}

    def _prediction(self, index: int, probabilities: np.ndarray) -> dict[str, object]:
        name = self._names[index] if index < len(self._names) else None
        return {"class": index, "name": name, "probability": float(probabilities[index])}
