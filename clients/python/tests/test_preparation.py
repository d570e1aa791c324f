"""Images that are brought to the network's input size before they are sent, and the extractors that need it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import programs
import pytest
from conftest import SIZE
from servers import Server
from unary import assert_same
from ventral_client import Client, InvalidRequest, MissingPackage
from ventral_client.preparation import fit

LAYERS = ["bn1", "fc"]

#: Pillow rounds single pixels of images that it resizes differently than the server.
RESIZED = 1e-2


def images(folder: Path) -> list[Path]:
    """Upright, flat, of the input's size, grey and transparent ones; smooth, so that a shift shows and rounding doesn't."""
    rows, columns = np.mgrid[0:90, 0:70]
    wave = (127 + 120 * np.sin(rows / 9) * np.cos(columns / 7)).astype(np.uint8)
    colour = PIL.Image.fromarray(np.stack([wave, wave[::-1], wave[:, ::-1]], -1))
    pictures = [colour, colour.rotate(90, expand=True), colour.crop((3, 5, 3 + SIZE, 5 + SIZE))]
    pictures += [PIL.Image.fromarray(wave), colour.convert("RGBA"), colour.convert("P")]
    paths = [folder / f"{index}.png" for index in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    return paths


@pytest.mark.parametrize("preprocessing", ["model", "stretch"])
def test_images_are_fitted_as_the_server_does(client: Client, tmp_path: Path, preprocessing: str) -> None:
    """By a network that stretches them."""
    check(client, images(tmp_path), preprocessing)


@pytest.mark.parametrize("preprocessing", ["model", "stretch"])
@pytest.mark.parametrize("channels", [3, 1])
def test_images_are_cropped_as_the_server_does(tmp_path: Path, channels: int, preprocessing: str) -> None:
    """By networks with ImageNet's preprocessing, and those that see grey."""
    checkpoint = tmp_path / "network.safetensors"
    network = ["--architecture", "resnet-cifar", "--blocks", "1,1", "--width", "4", "--classes", "10"]
    kind = "imagenet" if channels == 3 else "unit-range"
    data = ["--input-size", str(SIZE), "--channels", str(channels), "--preprocessing", kind]
    programs.run("trainer", "init", "--output", checkpoint, *network, *data, "--seed", "3", "--device", "cpu")
    programs.run("exporter", "export", checkpoint, "--repository", tmp_path / "models", "--model", "lc")
    with Server(tmp_path / "models") as server, Client(server.address) as client:
        assert client.model().preprocessing["resize"]["kind"] == (
            "short-side" if channels == 3 else "stretch"
        )
        check(client, images(tmp_path), preprocessing)


def check(client: Client, paths: list[Path], preprocessing: str) -> None:
    """Compares activations of files with those of their fitted pixels."""
    expected = client.activations(paths, LAYERS, preprocessing=preprocessing)
    fitted = [fit(PIL.Image.open(path), client.model(), preprocessing) for path in paths]
    assert all(pixels.shape == client.model().input_shape and pixels.dtype == np.uint8 for pixels in fitted)
    assert_same(client.activations(fitted, LAYERS), expected, RESIZED)


def test_the_middle_is_that_of_the_resized_image(client: Client) -> None:
    """Halves of a pixel go to the even neighbour, as torchvision rounds them."""
    model = replace(client.model(), preprocessing={"resize": {"kind": "short-side", "size": SIZE}})
    ramp = np.zeros((SIZE, SIZE + 3, 3), np.uint8)
    ramp[:] = np.arange(SIZE + 3)[:, np.newaxis]
    # A margin of 3: 1.5 to the left becomes 2.
    assert fit(PIL.Image.fromarray(ramp), model)[0, 0, 0] == 2
    ramp = ramp[:, : SIZE + 1]
    # A margin of 1: 0.5 becomes 0.
    assert fit(PIL.Image.fromarray(ramp), model)[0, 0, 0] == 0


def test_without_preprocessing_there_is_nothing_to_fit(client: Client) -> None:
    """The error says what to pass instead."""
    with pytest.raises(InvalidRequest, match="pass float32 arrays"):
        fit(PIL.Image.new("RGB", (8, 8)), client.model(), "none")


def test_extractors_say_what_is_to_be_installed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """thingsvision by its own name, torch by this package's extra."""
    from ventral_client.thingsvision import remote_extractor

    monkeypatch.setitem(sys.modules, "thingsvision", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "ventral_client.remote_module", raising=False)
    with pytest.raises(MissingPackage, match=r"needs thingsvision: pip install thingsvision$"):
        remote_extractor(client)
    with pytest.raises(MissingPackage, match=r"needs torch: pip install 'ventral-client\[torch\]'"):
        import ventral_client.remote_module  # noqa: F401
