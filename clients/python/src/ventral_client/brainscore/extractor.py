"""Brain-Score's extractor, asking a server. This module needs `brainscore_vision`.

What of 2.4.2's extractor is done otherwise here:
- A batch is neither waited for nor filled up with copies of its last image: all images are one stream.
- `require_variance=True` shifts the normalised input, which works however preprocessing is done.
- With it, the rows of a batch are in the order that they are labelled with: image by image, and within an image trial by
  trial. (There, they are computed trial by trial.)
- `number_of_trials` ends with the call that sets it, and is in the key of Brain-Score's result cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from brainscore_vision.model_helpers.activations.core import ActivationsExtractorHelper
from tqdm.auto import tqdm

from ..tensors import Array
from .package import Assembly, StimuliIdentifier, StimulusSet
from .pixels import prepared

if TYPE_CHECKING:
    from .activations import RemoteActivationsModel


class RemoteExtractor(ActivationsExtractorHelper):  # type: ignore[misc]
    """Gives Brain-Score what it makes assemblies of."""

    def __init__(self, model: RemoteActivationsModel, identifier: str, batch_size: int) -> None:
        """Of a model on a server."""
        self._model = model
        super().__init__(
            get_activations=model.get_activations,
            preprocessing=self._pixels,
            identifier=identifier,
            batch_size=batch_size,
        )

    def __call__(
        self,
        stimuli: StimulusSet | Sequence[str],
        layers: Sequence[str],
        stimuli_identifier: StimuliIdentifier = None,
        number_of_trials: int = 1,
        require_variance: bool = False,
    ) -> Assembly:
        """An assembly of a stimulus set or of paths."""
        try:
            return super().__call__(
                stimuli,
                layers=layers,
                stimuli_identifier=stimuli_identifier,
                number_of_trials=number_of_trials,
                require_variance=require_variance,
            )
        finally:
            self._microsaccade_helper.number_of_trials = 1

    def from_paths(
        self,
        stimuli_paths: Sequence[str],
        layers: Sequence[str],
        stimuli_identifier: StimuliIdentifier = None,
        require_variance: bool | None = None,
    ) -> Assembly:
        """An assembly of image files."""
        if require_variance and stimuli_identifier:
            stimuli_identifier = f"{stimuli_identifier}--trials{self._microsaccade_helper.number_of_trials}"
        return super().from_paths(
            stimuli_paths, layers, stimuli_identifier=stimuli_identifier, require_variance=require_variance
        )

    def _pixels(self, paths: Sequence[str]) -> Array:
        return np.stack([self._model.preparation.pixels(path) for path in paths])

    def _get_activations_batched(
        self, paths: Sequence[str], layers: Sequence[str], batch_size: int, require_variance: bool
    ) -> OrderedDict[str, Array]:
        paths = [str(path) for path in paths]
        trials = self._microsaccade_helper.number_of_trials if require_variance else 1
        total = len(paths) * trials
        answers = self._model.stream(self._inputs(paths, trials, require_variance), layers)
        rows = iter(tqdm(answers, total=total, desc="activations"))
        hooks = list(self._batch_activations_hooks.values())
        if not hooks:
            return _gathered(rows, layers, total)
        gathered: OrderedDict[str, Array] = OrderedDict()
        for start in range(0, total, batch_size * trials):
            count = min(batch_size * trials, total - start)
            batch = _gathered(islice(rows, count), layers, count)
            for hook in hooks:
                batch = hook(batch)
            for layer, values in batch.items():
                if layer not in gathered:
                    gathered[layer] = np.empty((total, *values.shape[1:]), values.dtype)
                gathered[layer][start : start + count] = values
        return gathered

    def _inputs(self, paths: Sequence[str], trials: int, require_variance: bool) -> Iterator[Array]:
        """What is sent: pixels, or with microsaccades the network's shifted inputs."""
        saccades = self._microsaccade_helper
        for path, pixels in zip(paths, prepared(self._model.preparation, paths), strict=True):
            if not require_variance:
                saccades.microsaccades["pixels"][path] = [(0.0, 0.0)]
                saccades.microsaccades["degrees"][path] = [(0.0, 0.0)]
                yield pixels
                continue
            normalised = self._model.preparation.normalised(pixels)
            channels = len(normalised)
            if channels == 1:
                # OpenCV, which shifts it, drops the axis of a single channel.
                normalised = np.repeat(normalised, 2, axis=0)
            for trial in range(trials):
                shifted: Array = saccades.translate_images([normalised], [path], trial, require_variance=True)
                yield shifted[0][:channels]


def _gathered(rows: Iterable[dict[str, Array]], layers: Sequence[str], count: int) -> OrderedDict[str, Array]:
    """Layer to the activations of `count` inputs, whose memory is taken once."""
    arrays: OrderedDict[str, Array] = OrderedDict()
    for position, row in enumerate(rows):
        for layer in layers:
            if layer not in arrays:
                arrays[layer] = np.empty((count, *row[layer].shape), row[layer].dtype)
            arrays[layer][position] = row[layer]
    return arrays
