"""Models that Brain-Score can score: which layer stands for which area, and which one behaviour is read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .activations import ModelOptions, RemoteActivationsModel, remote_activations_model
from .package import Benchmark, ModelCommitment, Score, brainscore

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CommitmentOptions(ModelOptions, total=False):
    """Keyword arguments of `commitment`, for `score`."""

    layers: Sequence[str] | None
    region_layer_map: Mapping[str, str | Sequence[str]] | None
    behavioral_readout_layer: str | None
    visual_degrees: float
    region_benchmarks: Mapping[str, Benchmark] | None
    pca_images: Sequence[str] | None
    pca_components: int


def commitment(
    address: str,
    model: str | None = None,
    *,
    layers: Sequence[str] | None = None,
    region_layer_map: Mapping[str, str | Sequence[str]] | None = None,
    behavioral_readout_layer: str | None = None,
    visual_degrees: float = 8,
    region_benchmarks: Mapping[str, Benchmark] | None = None,
    pca_images: Sequence[str] | None = None,
    pca_components: int = 1000,
    **options: Unpack[ModelOptions],
) -> ModelCommitment:
    """Brain-Score's `ModelCommitment` of a model on a server.

    Args:
        address: `host:port`, or `https://host:port` for TLS.
        model: None: the only one that the server has.
        layers: Layers that an area's is selected among; all unless given. `logits` is one here, as everywhere.
        region_layer_map: Area (`V1`, `V2`, `V4`, `IT`) to its layer, or layers. None: Brain-Score selects the layer that
            scores best on its public benchmark of the area, with principal components that the server fits; it
            downloads what it needs.
        behavioral_readout_layer: What probabilities and odd-one-out choices are read from; the last but the logits
            unless given.
        visual_degrees: How much of the visual field an image fills.
        region_benchmarks: Area to the benchmark that selects its layer, in the place of the public ones.
        pca_images: Paths of the images that principal components for the selection are fitted on; None: Brain-Score's.
        pca_components: How many.
        options: Those of `remote_activations_model`, which it is made with.

    Raises:
        UnknownLayer: Where the model lacks a layer; the message names the nearest.
        VentralError: Where the server can't be asked.
    """
    activations = remote_activations_model(address, model, **options)
    chosen = _checked(activations, activations.layers() if layers is None else layers)
    mapped: Mapping[str, str | Sequence[str]]
    if region_layer_map is not None:
        mapped = dict(region_layer_map)
        for named in mapped.values():
            _checked(activations, named)
    else:
        helpers = brainscore("model_helpers.brain_transformation")
        mapped = helpers.RegionLayerMap(
            layer_selection=_Selection(activations, chosen, visual_degrees, pca_images, pca_components),
            region_benchmarks=region_benchmarks or helpers.STANDARD_REGION_BENCHMARKS,
        )
    readout = behavioral_readout_layer or _readout(activations)
    activations.served_layer(readout)
    return brainscore("model_helpers.brain_transformation").ModelCommitment(
        identifier=activations.identifier,
        activations_model=activations,
        layers=chosen,
        behavioral_readout_layer=readout,
        region_layer_map=mapped,
        visual_degrees=visual_degrees,
    )


def score(
    address: str, model: str | None, benchmark: str | Benchmark, **options: Unpack[CommitmentOptions]
) -> Score:
    """The score of a model on a server, without a plugin.

    Args:
        address: `host:port`, or `https://host:port` for TLS.
        model: None: the only one that the server has.
        benchmark: Brain-Score's name of a benchmark, or the benchmark itself.
        options: Those of `commitment`.
    """
    package = brainscore()
    benchmark = package.load_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    candidate = commitment(address, model, **options)
    scored = package.score_benchmark(benchmark, candidate)
    scored.attrs["model_identifier"] = candidate.identifier
    scored.attrs["benchmark_identifier"] = benchmark.identifier
    return scored


class _Selection:
    """Selects layers when an area is first asked for: principal components are fitted only then."""

    def __init__(
        self,
        activations: RemoteActivationsModel,
        layers: Sequence[str],
        visual_degrees: float,
        pca_images: Sequence[str] | None,
        pca_components: int,
    ) -> None:
        self._activations = activations
        self._layers = layers
        self._visual_degrees = visual_degrees
        self._pca_images = pca_images
        self._pca_components = pca_components
        self._selection: Any = None

    def __call__(self, selection_identifier: str, benchmark: Benchmark) -> str:
        """The layer that scores best."""
        if self._selection is None:
            from .principal_components import with_principal_components

            projected = with_principal_components(
                self._activations, self._layers, self._pca_images, self._pca_components
            )
            self._selection = brainscore("model_helpers.brain_transformation").LayerSelection(
                # What was selected is cached by this and the selection's identifier, and depends on more.
                model_identifier=f"{projected.identifier}-{self._digest()}",
                activations_model=projected,
                layers=self._layers,
                visual_degrees=self._visual_degrees,
            )
        layer: str = self._selection(
            selection_identifier=f"{selection_identifier}-{benchmark.identifier}", benchmark=benchmark
        )
        return layer

    def _digest(self) -> str:
        chosen = repr((list(self._layers), float(self._visual_degrees)))
        return hashlib.blake2b(chosen.encode(), digest_size=4).hexdigest()


def _checked(activations: RemoteActivationsModel, layers: str | Sequence[str]) -> list[str]:
    """The layers by the names that they were given, if the model has them."""
    named = [layers] if isinstance(layers, str) else list(layers)
    if not named:
        return activations.model.check_layers(named)
    for layer in named:
        activations.served_layer(layer)
    return named


def _readout(activations: RemoteActivationsModel) -> str:
    layers = activations.layers()
    if len(layers) < 2:
        raise InvalidRequest(
            f"model `{activations.model.name}` has no layer but `{layers[0]}`: name a behavioral_readout_layer"
        )
    return layers[-2]
