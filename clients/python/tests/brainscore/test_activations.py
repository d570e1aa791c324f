"""What a remote model gives Brain-Score, and what it sends for that."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from brainscore_vision.model_helpers.activations.core import flatten
from brainscore_vision.model_helpers.activations.pca import LayerPCA
from conftest import LAYERS
from local import LocalModel
from population import part
from servers import Server
from ventral_client import Model
from ventral_client.brainscore import RemoteActivationsModel, remote_activations_model
from ventral_client.brainscore.pixels import Preparation, prepared
from ventral_client.groups import Group
from ventral_client.v1 import ventral_pb2 as pb


@pytest.fixture
def remote(server: Server) -> RemoteActivationsModel:
    """The model `lc`, exactly as the server computes it."""
    return remote_activations_model(server.address, "lc", data_type="float32")


@contextmanager
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[pb.Tensor]]:
    """The stimuli that leave this process, a tensor a message."""
    tensors: list[pb.Tensor] = []
    message = Group.message

    def watched(group: Group) -> pb.StreamActivationsRequest:
        made = message(group)
        tensors.append(made.stimuli.tensor)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Group, "message", watched)
        yield tensors


def same(one: NeuroidAssembly, other: NeuroidAssembly) -> None:
    """Asserts that two assemblies are of the same rows and columns, and equal up to rounding."""
    assert one.dims == other.dims
    for coordinate in ("stimulus_path", "stimulus_id"):
        if coordinate in other.coords:
            assert list(one[coordinate].values) == list(other[coordinate].values)
    for coordinate in ("layer", "neuroid_num", "channel", "channel_x", "channel_y"):
        np.testing.assert_array_equal(one[coordinate].values, other[coordinate].values)
    for layer in np.unique(one["layer"].values):
        ours, theirs = (assembly.sel(layer=layer).values for assembly in (one, other))
        # How many images are in a batch changes the rounding.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6 * np.abs(theirs).max(), err_msg=layer)


def test_stimuli_are_prepared_as_brain_score_does(tmp_path: Path) -> None:
    """Bit for bit, whatever the file's mode and size."""
    from variants import GOLDEN, SIZE, write

    preparation = Preparation((3, SIZE, SIZE), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with np.load(GOLDEN) as golden:
        paths = write(tmp_path)
        assert list(golden) == list(paths)
        for pixels, (name, expected) in zip(
            prepared(preparation, [str(path) for path in paths.values()]), golden.items(), strict=True
        ):
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(preparation.normalised(pixels), expected, err_msg=name)


def test_other_modes_are_prepared_too(tmp_path: Path) -> None:
    """Those that torchvision refuses."""
    preparation = Preparation((3, 8, 8), (0.0,) * 3, (1.0,) * 3)
    for mode in ("1", "CMYK", "YCbCr"):
        path = tmp_path / f"{mode}.tiff"
        PIL.Image.new("RGB", (8, 8), "white").convert(mode).save(path)
        assert preparation.pixels(str(path)).shape == (3, 8, 8)
        assert preparation.pixels(str(path)).min() >= 254
    grey = Preparation((1, 8, 8), (0.0,), (1.0,)).pixels(str(path))
    assert grey.shape == (1, 8, 8)


def test_an_assembly_is_that_of_a_local_model(
    remote: RemoteActivationsModel, local: LocalModel, stimuli: StimulusSet, paths: list[str]
) -> None:
    """Of a stimulus set and of paths; convolutional layers and flat ones."""
    layers = [*LAYERS, "avgpool", "logits"]
    same(remote(stimuli, layers), local(stimuli, layers))
    same(remote.from_paths(paths[:5], layers), local.from_paths(paths[:5], layers))
    few = part(stimuli, slice(0, 90, 40), "few")
    same(remote.from_stimulus_set(few, layers), local.from_stimulus_set(few, layers))
    activations = remote.get_activations(paths[:2], ["layer1", "logits"])
    assert list(activations) == ["layer1", "logits"] and activations["logits"].shape == (2, 1000)
    assert remote.image_size == 64


def test_half_precision_is_float32_when_it_arrives(
    server: Server, remote: RemoteActivationsModel, paths: list[str]
) -> None:
    """And is half as many bytes on its way, as good as exact."""
    half = remote_activations_model(server.address, "lc")
    assert half.data_type == "float16"
    rounded, exact = (model.from_paths(paths[:4], ["layer2"]) for model in (half, remote))
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded.values, exact.values)
    np.testing.assert_allclose(rounded.values, exact.values, rtol=1e-3, atol=1e-6)


def test_neither_padding_nor_duplicates_are_sent(
    server: Server, remote: RemoteActivationsModel, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image once, as 8-bit pixels, for all layers together."""
    twice = paths[:5] + paths[2:4]
    with sent(monkeypatch) as tensors:
        assembly = remote.from_paths(twice, LAYERS)
    assert sum(tensor.shape[0] for tensor in tensors) == 5
    assert {tensor.data_type for tensor in tensors} == {pb.DATA_TYPE_UINT8}
    assert (
        len(
            {
                bytes(row)
                for tensor in tensors
                for row in np.split(np.frombuffer(tensor.data, np.uint8), tensor.shape[0])
            }
        )
        == 5
    )
    assert list(assembly["stimulus_path"].values) == twice
    np.testing.assert_array_equal(assembly.values[2], assembly.values[5])


def test_the_identifier_has_the_checkpoint_s_digest(
    server: Server, described: Model, remote: RemoteActivationsModel
) -> None:
    """However it is set."""
    digest = described.checkpoint_digest[:16]
    assert remote.identifier == f"lc-{digest}-float32"
    named = remote_activations_model(server.address, "lc", identifier="mine")
    assert named.identifier == f"mine-{digest}"
    named.identifier += "-pca_1000"
    assert named.identifier == f"mine-{digest}-pca_1000" == named._extractor.identifier
    named.identifier = "other"
    assert named.identifier == f"other-{digest}"
    assert remote_activations_model(server.address, "ten").identifier != remote.identifier


def test_the_identifier_says_how_is_rounded(server: Server, described: Model) -> None:
    """Weights, and what is sent; also where names look as if they said so, or are another model's."""
    digest = described.checkpoint_digest[:16]
    models = {
        (name, data_type): remote_activations_model(
            server.address, name, identifier="lc", data_type=data_type
        )
        for name in ("lc", "lc-fp16")
        for data_type in ("float16", "float32", "bfloat16")
    }
    assert {key: model.identifier for key, model in models.items()} == {
        ("lc", "float16"): f"lc-{digest}",
        ("lc", "float32"): f"lc-{digest}-float32",
        ("lc", "bfloat16"): f"lc-{digest}-bfloat16",
        ("lc-fp16", "float16"): f"lc-{digest}-fp16",
        ("lc-fp16", "float32"): f"lc-{digest}-fp16-float32",
        ("lc-fp16", "bfloat16"): f"lc-{digest}-fp16-bfloat16",
    }
    named = remote_activations_model(server.address, "lc", identifier="lc-float32", data_type="float32")
    assert named.identifier == f"lc-float32-{digest}-float32"
    for model in models.values():
        own = model.identifier
        for other in models.values():
            model.identifier = f"{other.identifier}-pca_1000"
            assert model.identifier == f"{own}-pca_1000"
            model.identifier = own


def test_brain_score_s_cache_keeps_networks_apart(
    server: Server, stimuli: StimulusSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is used: what is cached is not asked for again."""
    models = [remote_activations_model(server.address, name) for name in ("lc", "lc-conv-init")]
    few = part(stimuli, slice(6), "cached")
    first = [model(few, ["layer3"]) for model in models]
    assert not np.array_equal(first[0].values, first[1].values)
    with sent(monkeypatch) as tensors:
        again = [model(few, ["layer3"]) for model in models]
    assert not tensors
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


def test_hooks_see_batches(remote: RemoteActivationsModel, paths: list[str]) -> None:
    """Of all layers, of the batch size; what they return is what is packed."""
    remote._extractor._batch_size = 4
    seen = []

    def hook(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append({layer: values.shape for layer, values in batch.items()})
        return {layer: flatten(values)[:, :3] for layer, values in batch.items()}

    plain = remote.from_paths(paths[:10], ["layer3", "layer4"])
    handle = remote.register_batch_activations_hook(hook)
    hooked = remote.from_paths(paths[:10], ["layer3", "layer4"])
    handle.remove()
    assert [next(iter(shapes.values()))[0] for shapes in seen] == [4, 4, 2]
    assert hooked.shape == (10, 6)
    for layer in ("layer3", "layer4"):
        np.testing.assert_array_equal(hooked.sel(layer=layer).values, plain.sel(layer=layer).values[:, :3])


def test_brain_score_s_own_layer_pca_works(
    remote: RemoteActivationsModel, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hook, with photographs in the place of those that it would download."""
    monkeypatch.setattr(
        "brainscore_vision.model_helpers.activations.pca._get_imagenet_val",
        lambda num_images: paths[:num_images],
    )
    monkeypatch.setenv("MT_MULTITHREAD", "0")
    handle = LayerPCA.hook(remote, n_components=7)
    assert LayerPCA.is_hooked(remote)
    assert remote.from_paths(paths[50:60], ["layer2", "layer3"]).shape == (10, 14)
    handle.remove()
    assert not LayerPCA.is_hooked(remote)


def test_a_stimulus_set_hook_replaces_stimuli(remote: RemoteActivationsModel, stimuli: StimulusSet) -> None:
    """Before they are read."""
    handle = remote.register_stimulus_set_hook(lambda stimulus_set: part(stimulus_set, slice(2), "hook"))
    assert len(remote(part(stimuli, slice(9), "before"), ["avgpool"])) == 2
    handle.remove()


def test_microsaccades_are_those_of_a_local_model(
    remote: RemoteActivationsModel,
    described: Model,
    repository: Path,
    stimuli: StimulusSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sent as floats, row by row what Brain-Score computes with batches of one, whose rows it can't mix up."""
    single = LocalModel(repository / "lc" / "1", described, identifier="single", batch_size=1)
    for model in (remote, single):
        model._extractor.set_visual_degrees(8)
    few = part(stimuli, slice(5), "shifted")
    with sent(monkeypatch) as tensors:
        varied = remote(few, ["layer2"], number_of_trials=3, require_variance=True)
    assert {tensor.data_type for tensor in tensors} == {pb.DATA_TYPE_FLOAT32}
    expected = single(few, ["layer2"], number_of_trials=3, require_variance=True)
    same(varied, expected)
    for coordinate in ("microsaccade_shift_x_pixels", "microsaccade_shift_y_degrees"):
        np.testing.assert_array_equal(varied[coordinate].values, expected[coordinate].values)
    assert not np.array_equal(varied.values[0], varied.values[1])
    np.testing.assert_allclose(varied.values[::3], remote(few, ["layer2"]).values, rtol=1e-4, atol=1e-5)


def test_grey_images_are_shifted_too(server: Server, stimuli: StimulusSet) -> None:
    """OpenCV has another shape for them."""
    grey = remote_activations_model(server.address, "grey", data_type="float32")
    grey._extractor.set_visual_degrees(8)
    few = part(stimuli, slice(3), "grey")
    varied = grey(few, ["layer2"], number_of_trials=2, require_variance=True)
    assert len(varied) == 6
    np.testing.assert_allclose(varied.values[::2], grey(few, ["layer2"]).values, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(varied.values[0], varied.values[1])


def test_trials_end_with_their_call(remote: RemoteActivationsModel, stimuli: StimulusSet) -> None:
    """Also where Brain-Score's cache holds another number of them."""
    remote._extractor.set_visual_degrees(8)
    few = part(stimuli, slice(4), "trials")
    for trials in (3, 2):
        varied = remote(few, ["layer4"], number_of_trials=trials, require_variance=True)
        assert len(varied) == 4 * trials
        assert len(remote(few, ["layer4"], stimuli_identifier=False)) == 4
