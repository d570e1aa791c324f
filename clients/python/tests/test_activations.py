"""Activations and classes equal what the server's unary calls give, for images in every form."""

from pathlib import Path

import ml_dtypes
import numpy as np
import PIL.Image
import pytest
import ventral_client
from conftest import CLASSES, SIZE
from servers import Server
from unary import assert_same, get_activations
from ventral_client import Client
from ventral_client.v1 import ventral_pb2 as pb

LAYERS = ["layer2", "fc", "bn1"]


def test_models_and_layers_are_described(client: Client) -> None:
    """Names, shapes, classes."""
    assert [(model.name, model.versions) for model in client.models()] == [("lc", ["1"]), ("other", ["1"])]
    model = client.model()
    assert (model.name, model.version, model.input_shape) == ("lc", "1", (3, SIZE, SIZE))
    assert model.layers[0] == "bn1" and model.layers[-1] == "fc"
    assert model.shapes["fc"] == (10,) and model.shapes["bn1"] == (4, SIZE, SIZE)
    assert model.class_names == CLASSES
    assert model.preprocessing and model.execution_provider == "CPU"
    assert client.model("other").checkpoint_digest != model.checkpoint_digest


def test_activations_of_files_equal_the_unary_call(client: Client, server: Server, paths: list[Path]) -> None:
    """In the order of the images, layers in the order of the request."""
    expected = get_activations(server.address, [path.read_bytes() for path in paths], LAYERS)
    assert_same(client.activations(paths, LAYERS), expected)
    # Every image in a message of its own, and an iterator whose length isn't known.
    assert_same(client.activations(iter(paths), LAYERS, in_flight=1), expected)
    one = client.activations(str(paths[3]), "fc")
    assert_same(one, {"fc": expected["fc"][3:4]})


@pytest.mark.parametrize("size", [SIZE, 40])
def test_images_in_every_form_are_the_same_stimulus(client: Client, size: int, tmp_path: Path) -> None:
    """Paths, bytes, Pillow images and arrays, of the network's size and of another."""
    pixels = np.random.default_rng(3).integers(0, 256, (5, size, size, 3), np.uint8)
    images = [PIL.Image.fromarray(image) for image in pixels]
    paths = [tmp_path / f"{index}.bmp" for index in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    expected = client.activations(paths, LAYERS)
    forms = {
        "bytes": [path.read_bytes() for path in paths],
        "Pillow": images,
        "opened": [PIL.Image.open(path) for path in paths],
        "[N, H, W, C]": pixels,
        "[H, W, C] each": list(pixels),
        "[N, C, H, W]": np.moveaxis(pixels, -1, 1),
        "mixed": [paths[0], images[1], pixels[2], paths[3].read_bytes(), np.moveaxis(pixels[4], -1, 0)],
    }
    for form, stimuli in forms.items():
        try:
            assert_same(client.activations(stimuli, LAYERS), expected)
        except AssertionError as error:
            raise AssertionError(form) from error


def test_float_arrays_are_the_network_input(client: Client, pixels: np.ndarray) -> None:
    """This network's preprocessing is a division by 255."""
    inputs = np.moveaxis(pixels, -1, 1).astype(np.float32) / 255
    expected = client.activations(pixels, LAYERS)
    assert_same(client.activations(inputs, LAYERS), expected)
    assert_same(client.activations(inputs, LAYERS, preprocessing="none"), expected)
    assert_same(client.activations(inputs[7], ["fc"]), {"fc": expected["fc"][7:8]})


def test_grey_and_transparent_images_are_sent(client: Client) -> None:
    """Modes of Pillow's that PNG files haven't are converted."""
    grey = PIL.Image.fromarray(np.arange(40 * 40, dtype=np.uint16).astype(np.uint8).reshape(40, 40))
    expected = client.activations([grey], ["fc"])
    for image in [grey.convert("RGB"), grey.convert("P"), grey.convert("RGBA"), np.asarray(grey)]:
        assert_same(client.activations([image], ["fc"]), expected)


@pytest.mark.parametrize("data_type", ["float16", "bfloat16"])
def test_narrow_types_are_widened_unless_told_otherwise(
    client: Client, paths: list[Path], data_type: str
) -> None:
    """float16 and bfloat16 on the wire."""
    exact = client.activations(paths, LAYERS)
    widened = client.activations(paths, LAYERS, data_type=data_type)
    assert_same(widened, exact, tolerance=1 / 128)
    narrow = client.activations(paths, LAYERS, data_type=data_type, widen=False)
    expected = np.dtype(np.float16 if data_type == "float16" else ml_dtypes.bfloat16)
    for layer, values in narrow.items():
        assert values.dtype == expected
        assert np.array_equal(values.astype(np.float32), widened[layer])


def test_options_reach_the_server(client: Client, server: Server, paths: list[Path]) -> None:
    """Pooling, units, stretching, compression, priority."""
    whole = client.activations(paths, ["layer1", "layer2"])
    mean = client.activations(paths, ["layer1"], pooling="spatial_mean", compression="zstd")
    assert_same(mean, {"layer1": whole["layer1"].mean((2, 3))})
    units = client.activations(
        paths, ["layer2"], units={"layer2": [5, 0]}, priority="interactive", exclusive=True
    )
    assert_same(units, {"layer2": whole["layer2"].reshape(len(paths), -1)[:, [5, 0]]})
    stretched = pb.ActivationOptions(preprocessing=pb.PREPROCESSING_STRETCH)
    expected = get_activations(server.address, [path.read_bytes() for path in paths], ["fc"], stretched)
    assert_same(client.activations(paths, ["fc"], preprocessing="stretch"), expected)
    with pytest.raises(ventral_client.InvalidRequest, match="'spatial_mean'"):
        client.activations(paths, ["fc"], pooling="mean")
    with pytest.raises(ventral_client.InvalidRequest, match="there are: preprocessing"):
        client.activations(paths, ["fc"], pool="mean")


def test_classes_come_with_probabilities(client: Client, paths: list[Path]) -> None:
    """The softmax of the logits, likeliest first, for more images than one message holds."""
    logits = client.activations(paths * 2, ["fc"])["fc"]
    found = client.classify(paths * 2, top_k=3)
    assert len(found) == len(logits)
    for predictions, row in zip(found, logits, strict=True):
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert [prediction.index for prediction in predictions] == list(np.argsort(-row)[:3])
        for prediction in predictions:
            assert prediction.name == CLASSES[prediction.index]
            assert prediction.probability == pytest.approx(probabilities[prediction.index], rel=1e-4)


def test_nothing_of_nothing(client: Client) -> None:
    """No images are no activations, and no error."""
    assert client.activations([], ["fc"]) == {}
    assert list(client.stream([], ["fc"])) == []
    assert client.classify([]) == []
