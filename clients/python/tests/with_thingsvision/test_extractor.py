"""thingsvision, unmodified, extracts from a network on a server: its data sets, loaders, files, RDMs and CKA.

It needs an environment of its own, of several gigabytes; CONTRIBUTING.md says how to make it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from servers import Server
from thingsvision import get_extractor_from_model
from thingsvision.core.cka import get_cka
from thingsvision.core.extraction.torch import PyTorchExtractor
from thingsvision.core.rsa import compute_rdm, correlate_rdms
from thingsvision.utils.data import DataLoader, ImageDataset
from thingsvision.utils.storing import save_features
from torchvision import transforms as T
from unary import assert_same
from ventral_client import Client, InvalidRequest, ModelChanged, UnknownModel
from ventral_client.remote_module import RemoteModule
from ventral_client.thingsvision import Transformation, remote_extractor

LAYERS = ["layer1", "fc", "bn1"]

#: Pillow rounds single pixels of images that it resizes differently than the server.
RESIZED = 1e-2


@pytest.fixture
def extractor(client: Client) -> PyTorchExtractor:
    """The extractor of `lc`."""
    return remote_extractor(client)


@pytest.fixture
def batches(extractor: PyTorchExtractor, paths: list[Path], tmp_path: Path) -> DataLoader:
    """All images, in batches of which the last is smaller."""
    dataset = ImageDataset(
        root=str(paths[0].parent),
        out_path=str(tmp_path / "features"),
        backend=extractor.get_backend(),
        transforms=extractor.get_transformations(),
    )
    assert dataset.samples == [str(path) for path in paths]
    return DataLoader(dataset=dataset, batch_size=10, backend=extractor.get_backend())


def test_its_features_are_the_client_s_activations(
    extractor: PyTorchExtractor, batches: DataLoader, client: Client, paths: list[Path]
) -> None:
    """Of one layer as an array, of many as a dictionary, flat, and as tensors."""
    expected = client.activations(paths, LAYERS)
    many = extractor.extract_features(batches=batches, module_names=LAYERS)
    assert_same(dict(many), expected, RESIZED)
    one = extractor.extract_features(batches=batches, module_name="layer1", flatten_acts=True)
    flat = expected["layer1"].reshape(len(paths), -1)
    assert_same({"layer1": one}, {"layer1": flat}, RESIZED)
    tensor = extractor.extract_features(batches=batches, module_name="fc", output_type="tensor")
    assert isinstance(tensor, torch.Tensor)
    assert_same({"fc": tensor.numpy()}, {"fc": expected["fc"]}, RESIZED)


def test_it_names_and_shows_the_layers(extractor: PyTorchExtractor, client: Client) -> None:
    """And refuses others, with thingsvision's words."""
    assert sorted(extractor.get_module_names()) == sorted(client.model().layers)
    shown = str(extractor.show_model())
    assert "(layer1): Layer(" in shown and "[4, 32, 32]" in shown
    pixels = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    with pytest.raises(ValueError, match="layer9 is not a valid module name"):
        extractor.extract_features(batches=[pixels], module_name="layer9")


@pytest.mark.parametrize("size", [(40, 48), (57, 33), (32, 32), (41, 90)])
def test_the_transformation_is_torchvision_s(client: Client, size: tuple[int, int]) -> None:
    """To the pixel, for networks that crop and those that stretch."""
    image = _pillow(np.random.default_rng(6).integers(0, 256, (*size, 3), np.uint8))
    stretched = client.model()
    whole = np.asarray(T.Resize((32, 32))(image))
    np.testing.assert_array_equal(Transformation(stretched)(image), np.moveaxis(whole, -1, 0))
    cropping = replace(stretched, preprocessing={"resize": {"kind": "short-side", "size": 37}})
    middle = np.asarray(T.CenterCrop(32)(T.Resize(37)(image)))
    np.testing.assert_array_equal(Transformation(cropping)(image), np.moveaxis(middle, -1, 0))


def test_float_batches_are_the_network_s_input(
    extractor: PyTorchExtractor, client: Client, pixels: np.ndarray
) -> None:
    """As transformations with a normalisation of their own give them; in thingsvision's loop or in one's own."""
    expected = client.activations(pixels, LAYERS)
    inputs = torch.from_numpy(np.moveaxis(pixels, -1, 1).astype(np.float32) / 255)
    found = extractor.extract_features(batches=list(inputs.split(9)), module_names=LAYERS)
    assert_same(dict(found), expected)
    with extractor.batch_extraction(module_names=LAYERS) as opened:
        assert_same(opened.extract_batch(batch=inputs, flatten_acts=False), expected)


def test_loaders_of_torch_with_labels_are_taken(
    extractor: PyTorchExtractor, client: Client, pixels: np.ndarray
) -> None:
    """In worker processes, too: the transformation can be sent there."""
    images = [(extractor.get_transformations()(_pillow(image)), 0) for image in pixels]
    loader = torch.utils.data.DataLoader(images, batch_size=7, num_workers=1)
    found = extractor.extract_features(batches=loader, module_name="fc")
    assert_same({"fc": found}, client.activations(pixels, ["fc"]))


def test_features_go_to_files_rdms_and_cka(
    extractor: PyTorchExtractor, batches: DataLoader, client: Client, paths: list[Path], tmp_path: Path
) -> None:
    """thingsvision's helpers take them."""
    expected = client.activations(paths, ["layer1", "fc"])
    folder = tmp_path / "extracted"
    extractor.extract_features(
        batches=batches, module_name="fc", output_dir=str(folder), save_in_one_file=True
    )
    assert_same({"fc": np.load(folder / "fc" / "features.npy")}, {"fc": expected["fc"]}, RESIZED)

    features = extractor.extract_features(batches=batches, module_names=["layer1", "fc"], flatten_acts=True)
    save_features(features["fc"], out_path=str(tmp_path / "saved"), file_format="npy")
    assert_same({"fc": np.load(tmp_path / "saved" / "features.npy")}, {"fc": expected["fc"]}, RESIZED)
    one, other = (compute_rdm(features[layer], method="correlation") for layer in features)
    np.testing.assert_allclose(one, 1 - np.corrcoef(features["layer1"]), atol=1e-5)
    assert -1 < correlate_rdms(one, other, correlation="spearman") < 1
    cka = get_cka(backend="numpy", m=len(paths), kernel="linear")
    assert cka.compare(X=features["fc"], Y=features["fc"]) == pytest.approx(1)


def test_a_forward_pass_computes_no_deeper_than_hooks_ask(client: Client, pixels: np.ndarray) -> None:
    """A module by itself: for hooks of one's own, and for thingsvision's function that takes modules."""
    module = RemoteModule(client)
    images = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
    expected = client.activations(pixels, ["bn1", "fc"])
    assert_same({"fc": module(images).numpy()}, {"fc": expected["fc"]})
    seen = []
    handle = dict(module.named_modules())["bn1"].register_forward_hook(
        lambda layer, inputs, output: seen.append(output)
    )
    assert_same({"bn1": module(images).numpy()}, {"bn1": expected["bn1"]})
    assert_same({"bn1": seen[0].numpy()}, {"bn1": expected["bn1"]})
    handle.remove()
    assert list(module.parameters()) == []
    other = get_extractor_from_model(model=module, device="cpu", backend="pt")
    assert_same({"fc": other.extract_features(batches=[images], module_name="fc")}, {"fc": expected["fc"]})


def test_an_address_will_do(client: Client, pixels: np.ndarray) -> None:
    """And errors are the client's."""
    address = client._endpoint.address
    extractor = remote_extractor(address, "other", pooling="spatial_mean", data_type="float16")
    images = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
    found = extractor.extract_features(batches=[images], module_name="layer1")
    expected = client.activations(pixels, "layer1", model="other", pooling="spatial_mean")["layer1"]
    assert found.shape == expected.shape == (24, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)
    with pytest.raises(UnknownModel, match="another"):
        remote_extractor(address, "another")
    with pytest.raises(InvalidRequest, match="preprocessing='none'"):
        remote_extractor(address, "lc", preprocessing="none")


def test_activations_of_two_networks_are_never_mixed(
    repository: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Where the server has another network under the same name and version by now."""
    models = tmp_path / "models"
    shutil.copytree(repository / "lc", models / "lc")
    images = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
    with Server(models) as server, Client(server.address) as client:
        module = RemoteModule(client)
        module(images)
        server.kill()
        shutil.rmtree(models / "lc")
        shutil.copytree(repository / "other", models / "lc")
        server.start()
        with pytest.raises(ModelChanged, match="`lc` version 1 is another network"):
            module(images)


def _pillow(image: np.ndarray) -> object:
    from PIL import Image

    return Image.fromarray(image)
