"""The same network in this process, by ONNX Runtime, through Brain-Score's own extractor as a `PytorchWrapper` goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_vision.model_helpers.activations.core import ActivationsExtractorHelper
from ventral_client import Model
from ventral_client.brainscore.pixels import Preparation


class LocalModel:
    """A bundle as an activations model of Brain-Score's."""

    def __init__(
        self, bundle: Path, model: Model, identifier: str = "local", batch_size: int = 64, threads: int = 0
    ) -> None:
        """`model` says how images are normalised."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            bundle / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._preparation = Preparation.of(model)
        self._logits = model.layers[-1]
        self._extractor = ActivationsExtractorHelper(
            get_activations=self.get_activations,
            preprocessing=self._preprocess,
            identifier=identifier,
            batch_size=batch_size,
        )
        self._extractor.insert_attrs(self)

    @property
    def identifier(self) -> str:
        """What Brain-Score's cache calls it."""
        return self._extractor.identifier

    @identifier.setter
    def identifier(self, value: str) -> None:
        self._extractor.identifier = value

    def __call__(self, *arguments: object, **keywords: object) -> NeuroidAssembly:
        """An assembly."""
        return self._extractor(*arguments, **keywords)

    def get_activations(self, images: np.ndarray, layer_names: Sequence[str]) -> OrderedDict[str, np.ndarray]:
        """Of a batch of inputs."""
        names = [self._logits if layer == "logits" else layer for layer in layer_names]
        outputs = self._session.run(names, {"input": np.stack(images)})
        return OrderedDict(zip(layer_names, outputs, strict=True))

    def _preprocess(self, paths: Sequence[str]) -> np.ndarray:
        return np.stack([self._preparation.normalised(self._preparation.pixels(path)) for path in paths])
