"""Long streams: order, memory, broken connections, images that can't be read."""

import os
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import ventral_client
from damaged import damaged_png
from servers import Server
from ventral_client import Client
from ventral_client.groups import LEAST_IMAGES, MAXIMUM_IMAGES

LAYERS = ["layer1", "fc"]


def test_a_stream_gives_each_image_in_its_order(client: Client, paths: list[Path]) -> None:
    """With names, positions, and a bar."""
    expected = client.activations(paths, LAYERS)
    answers = list(client.stream(paths, LAYERS, progress=True))
    assert [answer.index for answer in answers] == list(range(len(paths)))
    assert [answer.name for answer in answers] == [str(path) for path in paths]
    for answer in answers:
        assert list(answer.activations) == LAYERS
        for layer, values in answer.activations.items():
            np.testing.assert_allclose(values, expected[layer][answer.index], rtol=1e-4, atol=1e-5)


class Counted:
    """Counts objects that live."""

    def __init__(self) -> None:
        """None yet."""
        self.living = self.most = self.all = 0

    def add(self, thing: object) -> None:
        """Another one."""
        self.living += 1
        self.all += 1
        self.most = max(self.most, self.living)
        weakref.finalize(thing, self._remove)

    def _remove(self) -> None:
        self.living -= 1


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_bounded_over_a_long_stream(client: Client, pixels: np.ndarray) -> None:
    """3,000 images and 340 MB of activations: what is held is what is in flight."""
    in_flight, count = 32, 3000
    layers = client.model().layers
    images_seen, answers_seen = Counted(), Counted()

    def images() -> Iterator[np.ndarray]:
        for index in range(count):
            image = pixels[index % len(pixels)].copy()
            images_seen.add(image)
            yield image

    taken = ahead = moved = 0
    before = 0
    for answer in client.stream(images(), layers, in_flight=in_flight):
        taken += 1
        ahead = max(ahead, images_seen.all - taken)
        answers_seen.add(answer)
        moved += sum(values.nbytes for values in answer.activations.values())
        if taken == 500:
            before = resident_bytes()
    assert taken == images_seen.all == count
    assert moved > 300e6
    # Beside what is in flight: a group that is put together, and one that is handed out.
    assert ahead <= in_flight + 2 * (MAXIMUM_IMAGES + LEAST_IMAGES)
    assert images_seen.most <= in_flight + 2 * (MAXIMUM_IMAGES + LEAST_IMAGES)
    assert answers_seen.most <= 2 * (MAXIMUM_IMAGES + LEAST_IMAGES)
    assert resident_bytes() - before < moved / 4


def test_a_stream_that_is_left_reads_no_further(client: Client, pixels: np.ndarray) -> None:
    """And the client goes on to serve."""
    made = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal made
        while True:
            made += 1
            yield pixels[made % len(pixels)]

    answers = client.stream(images(), LAYERS, in_flight=16)
    next(answers)
    answers.close()
    assert made <= 2 * (MAXIMUM_IMAGES + LEAST_IMAGES)
    assert client.model().name == "lc"


def test_an_error_of_the_caller_s_own_images_comes_through(client: Client, pixels: np.ndarray) -> None:
    """A generator that fails."""

    def images() -> Iterator[np.ndarray]:
        yield pixels[0]
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(client.stream(images(), LAYERS))


def test_a_stream_does_not_go_on_with_rounded_weights(
    repository: Path, rounded: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Though they are of the same checkpoint: its activations are others."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "lc").symlink_to(repository / "lc")
    images = (pixels[index % len(pixels)] for index in range(200))
    with Server(models) as server, Client(server.address, model="lc") as client:
        whole = client.model()
        answers = client.stream(images, LAYERS, in_flight=16)
        next(answers)
        server.kill()
        (models / "lc").unlink()
        (models / "lc").symlink_to(rounded / "lc")
        server.start()
        with pytest.raises(ventral_client.ModelChanged, match=r"had fp32 weights and has fp16 ones"):
            list(answers)
        now = client.model()
    assert now.checkpoint_digest == whole.checkpoint_digest
    assert (whole.weights, now.weights) == ("fp32", "fp16")


def test_a_stream_goes_on_when_the_server_was_killed_and_restarted(
    repository: Path, pixels: np.ndarray
) -> None:
    """Twice, with every image answered once and as if nothing had been."""
    count = 400
    images = [pixels[index % len(pixels)] for index in range(count)]
    with Server(repository) as server, Client(server.address, model="lc") as client:
        expected = client.activations(pixels, LAYERS)
        indices = []
        for answer in client.stream(iter(images), LAYERS, in_flight=24):
            indices.append(answer.index)
            for layer, values in answer.activations.items():
                same = expected[layer][answer.index % len(pixels)]
                np.testing.assert_allclose(values, same, rtol=1e-4, atol=1e-5)
            if answer.index in (50, 203):
                server.kill()
                server.start()
        assert indices == list(range(count))


def test_another_network_does_not_go_on_with_a_stream(
    repository: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    """A server that comes back with another checkpoint under the same name."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "lc").symlink_to(repository / "lc")

    def replace_on_the_way(server: Server, client: Client) -> None:
        for answer in client.stream((pixels[i % 24] for i in range(400)), LAYERS, in_flight=16):
            if answer.index == 20:
                server.kill()
                (models / "lc").unlink()
                (models / "lc").symlink_to(repository / "other")
                server.start()

    changed = pytest.raises(ventral_client.ModelChanged, match="start again")
    with Server(models) as server, Client(server.address) as client, changed:
        replace_on_the_way(server, client)


def test_images_that_turn_out_to_be_damaged_are_skipped(
    client: Client, paths: list[Path], tmp_path: Path
) -> None:
    """Pillow reads pixels only when they are asked for."""
    path = tmp_path / "damaged.png"
    path.write_bytes(damaged_png())
    with PIL.Image.open(path) as damaged:
        stimuli = [*paths[:3], damaged, *paths[3:5]]
        answers = list(client.stream(stimuli, ["fc"], skip_unreadable=True))
    assert [answer.index for answer in answers if answer.unreadable is not None] == [3]
    assert "broken PNG file" in str(answers[3].unreadable)


@pytest.mark.parametrize("bad", ["missing", "text", "truncated"])
def test_unreadable_images_are_named_or_skipped(
    client: Client, paths: list[Path], tmp_path: Path, bad: str
) -> None:
    """Whether this machine or the server can't read them; what comes before is answered."""
    path = tmp_path / "bad.png"
    if bad == "text":
        path.write_text("no image")
    elif bad == "truncated":
        path.write_bytes(paths[0].read_bytes()[:100])
    stimuli: list[object] = [*paths[:20], path, *paths[20:], path]
    answered = []
    with pytest.raises(ventral_client.UnreadableStimulus) as caught:
        for answer in client.stream(stimuli, ["fc"], in_flight=64):
            answered.append(answer.index)
    assert (caught.value.index, caught.value.name) == (20, str(path))
    assert str(path) in str(caught.value) and "stimulus 20" in str(caught.value)
    assert answered == list(range(len(answered)))
    if bad == "missing":
        assert len(answered) == 20
    answers = list(client.stream(stimuli, ["fc"], skip_unreadable=True))
    assert [answer.index for answer in answers if answer.unreadable is not None] == [20, 25]
    assert [answer.index for answer in answers] == list(range(26))
    expected = client.activations(paths, ["fc"])["fc"]
    good = np.stack([answer.activations["fc"] for answer in answers if answer.unreadable is None])
    np.testing.assert_allclose(good, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ventral_client.UnreadableStimulus, match=r"stimulus 1 .*bad\.png"):
        client.classify([paths[0], path])
