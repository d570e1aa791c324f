"""Layer selection with principal components that the server fits and applies, in the place of Brain-Score's `LayerPCA`."""

from __future__ import annotations

import numpy as np
import pytest
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from brainscore_vision.model_helpers.activations.pca import LayerPCA
from brainscore_vision.model_helpers.brain_transformation import LayerSelection, ModelCommitment
from conftest import LAYERS
from local import LocalModel
from population import Recording, part
from servers import Server
from test_scores import neural
from ventral_client import UnreadableStimulus
from ventral_client.brainscore import commitment, remote_activations_model
from ventral_client.brainscore.principal_components import with_principal_components

COMPONENTS = 40
#: What a batch's size changes, relative to a layer's greatest value.
ROUNDING = 2e-6


def test_projected_activations_are_those_of_layer_pca(
    server: Server, local: LocalModel, stimuli: StimulusSet, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which decomposes whole activations in this process; small layers stay as they are, and a fit is made once."""
    layers = ["layer1", "layer4", "avgpool"]
    remote = remote_activations_model(server.address, "lc")
    fitting, shown = paths[:COMPONENTS], part(stimuli, slice(60, 80), "projected")
    projected = with_principal_components(remote, layers, fitting, COMPONENTS)
    assert LayerPCA.is_hooked(projected) and not LayerPCA.is_hooked(remote)
    assert projected.identifier.startswith(f"{remote.identifier}-pca_{COMPONENTS}-")

    monkeypatch.setattr(
        "brainscore_vision.model_helpers.activations.pca._get_imagenet_val",
        lambda num_images: fitting[:num_images],
    )
    monkeypatch.setenv("MT_MULTITHREAD", "0")
    local.identifier = "local-pca"
    handle = LayerPCA.hook(local, COMPONENTS)
    try:
        expected = local(shown, layers)
    finally:
        handle.remove()
    found = projected(shown, layers)
    # A fit on so many images has one component less than they are: the last of scikit-learn's is rounding.
    for layer in layers:
        ours, theirs = (assembly.sel(layer=layer).values for assembly in (found, expected))
        count = COMPONENTS - 1
        scale = np.abs(theirs[:, :count]).max()
        np.testing.assert_allclose(
            np.abs(ours[:, :count]), np.abs(theirs[:, :count]), atol=2e-3 * scale, err_msg=layer
        )
    with monkeypatch.context() as patch:
        patch.setattr(remote.client, "fit_projections", None)
        again = with_principal_components(remote, layers, fitting, COMPONENTS)
    repeated = again(shown, layers, stimuli_identifier=False)
    for layer in layers:
        # Which images are in a batch is a matter of time, and sums of many terms are rounded otherwise in larger ones.
        one, other = (assembly.sel(layer=layer).values for assembly in (repeated, found))
        np.testing.assert_allclose(one, other, rtol=0, atol=ROUNDING * np.abs(other).max(), err_msg=layer)


def test_layers_are_selected_on_the_server(
    server: Server,
    stimuli: StimulusSet,
    recording: Recording,
    paths: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the benchmark of an area, when that is first recorded from; activations themselves are never sent for it."""
    monkeypatch.setattr(
        "brainscore_vision.model_helpers.activations.pca._get_imagenet_val",
        lambda num_images: pytest.fail("Brain-Score's own images are asked for"),
    )
    benchmark = neural(recording, "ridge")
    candidate = commitment(
        server.address,
        "lc-conv-init",
        layers=LAYERS,
        region_benchmarks={"V1": benchmark},
        pca_images=paths,
        pca_components=30,
    )
    candidate.start_recording("V1", [(70, 170)])
    selected = candidate.layer_model.region_layer_map["V1"]
    scores = {layer: float(benchmark(_projected(server, layer, paths))) for layer in LAYERS}
    assert selected == max(scores, key=scores.__getitem__)
    assert not LayerPCA.is_hooked(candidate.activations_model)
    assert candidate.look_at(part(stimuli, slice(5), "selected")).shape[1] == np.prod(
        candidate.activations_model.model.shapes[selected]
    )


def test_selections_of_other_layers_are_made_anew(
    server: Server, recording: Recording, paths: list[str]
) -> None:
    """Brain-Score's cache holds what was selected: of the same layers, degrees, benchmark and images only."""

    def select(layers: list[str], metric: str = "ridge", **arguments: float) -> str:
        candidate = commitment(
            server.address,
            "lc-conv-init",
            layers=layers,
            region_benchmarks={"V1": neural(recording, metric)},
            pca_images=paths[:40],
            pca_components=20,
            **arguments,
        )
        return str(candidate.layer_model.region_layer_map["V1"])

    selected = select(LAYERS)
    others = [layer for layer in LAYERS if layer != selected]
    assert select(others) in others
    keys = set()
    store = LayerSelection._call

    def watched(self: LayerSelection, **arguments: object) -> object:
        keys.add((arguments["model_identifier"], arguments["selection_identifier"]))
        return store(self, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LayerSelection, "_call", watched)
        assert select(LAYERS) == selected
        select(LAYERS, visual_degrees=12)
        select(LAYERS, "cka")
        select(others)
        select(others)
    assert len(keys) == 4


def test_images_that_are_missing_are_named(server: Server, paths: list[str]) -> None:
    """Before anything is fitted."""
    remote = remote_activations_model(server.address, "lc")
    with pytest.raises(UnreadableStimulus, match=r"stimulus 2 .*nowhere\.png: No such file") as caught:
        with_principal_components(remote, ["layer1"], [*paths[:2], "nowhere.png"], 10)
    assert (caught.value.index, caught.value.name) == (2, "nowhere.png")


def _projected(server: Server, layer: str, paths: list[str]) -> ModelCommitment:
    """A commitment of one layer's components."""
    remote = remote_activations_model(server.address, "lc-conv-init", identifier=f"only-{layer}")
    projected = with_principal_components(remote, [layer], paths, 30)
    return ModelCommitment(
        identifier=projected.identifier,
        activations_model=projected,
        layers=[layer],
        region_layer_map={"V1": layer},
    )
