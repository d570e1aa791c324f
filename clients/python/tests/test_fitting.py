"""Projections that the server fits are scikit-learn's principal components, and nothing is left of fits that end early."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import programs
import pytest
import ventral_client
from front import Front
from numpy.typing import NDArray
from scipy.linalg import subspace_angles
from servers import Server
from sklearn.decomposition import PCA
from test_command_line import lines, run
from test_failures import Refusing
from ventral_client import AsyncClient, Client, FittedProjection, Retries
from ventral_client.fitting import FitBars
from ventral_client.tensors import Array
from ventral_client.v1 import ventral_pb2 as pb

#: Early and late ones: 4,096 values, 1,024, 16 and 10.
LAYERS = ["relu", "layer2", "avgpool", "fc"]
COMPONENTS = 20
#: As long as a server may take to start again.
PATIENT = Retries(attempts=600, initial=0.05, maximum=0.2)


@pytest.fixture(scope="module")
def images() -> Array:
    """60 images of the network's size that have structure: waves with noise."""
    generator = np.random.default_rng(5)
    rows, columns = np.mgrid[0:32, 0:32] / 32
    waves = [
        np.sin(2 * np.pi * (frequency[0] * rows + frequency[1] * columns + phase))
        for frequency, phase in zip(
            generator.uniform(-4, 4, (60, 2)), generator.uniform(0, 1, 60), strict=True
        )
    ]
    noise = generator.normal(0, 0.3, (60, 32, 32, 3))
    return np.clip(128 + 60 * (np.stack(waves)[..., np.newaxis] + noise), 0, 255).astype(np.uint8)


@pytest.fixture
def fits(client: Client) -> Iterator[Client]:
    """The client, which leaves no projections."""
    yield client
    for projection in client.projections():
        client.delete_projection(projection.name)


def rows(activations: Array) -> NDArray[np.float64]:
    """A row an image, as scikit-learn takes them."""
    return activations.reshape(len(activations), -1).astype(np.float64)


def layers_of(client: Client) -> list[str]:
    """Those of `LAYERS` that the model has."""
    known = client.model().layers
    return [layer for layer in LAYERS if layer in known]


def test_projections_are_those_of_scikit_learn(fits: Client, images: Array) -> None:
    """Every component with its sign, for layers of more and of fewer values than images, in one pass."""
    layers = layers_of(fits)
    assert len(layers) >= 3
    fitted = fits.fit_projections(images, layers, "pca", components=COMPONENTS)
    assert list(fitted) == layers
    whole = fits.activations(images, layers)
    names = [found.name for found in fitted.values()]
    projected = fits.activations(images, layers, projections=names)
    for layer, found in fitted.items():
        data = rows(whole[layer])
        wanted = min(COMPONENTS, *data.shape)
        expected = PCA(wanted, svd_solver="full").fit(data)
        assert (found.name, found.layer, found.features) == (f"pca.{layer}", layer, data.shape[1])
        assert (found.images, found.exact, found.stored) == (60, True, False)
        # Units that are dead, or sums of others, leave directions in which images differ by rounding alone.
        assert found.components == wanted
        rounding = 1e-9 * expected.explained_variance_[0]
        np.testing.assert_allclose(
            found.explained_variance, expected.explained_variance_, rtol=1e-4, atol=rounding
        )
        np.testing.assert_allclose(
            found.explained_variance_ratio, expected.explained_variance_ratio_, rtol=1e-4, atol=1e-9
        )
        real = expected.explained_variance_ > rounding
        np.testing.assert_allclose(found.singular_values[real], expected.singular_values_[real], rtol=1e-4)
        transformed = expected.transform(data)
        scale = np.abs(transformed).max()
        np.testing.assert_allclose(projected[layer], transformed, atol=1e-4 * scale)
        # The angles between what both span: of the images in the components.
        angles = subspace_angles(rows(projected[layer])[:, real], transformed[:, real])
        assert np.degrees(angles).max() < 0.1


def test_new_images_are_projected_as_scikit_learn_does(fits: Client, images: Array, pixels: Array) -> None:
    """Pooled, too: the options of the fit and of the projection are the same."""
    layer = layers_of(fits)[0]
    for pooling in ("none", "spatial_mean"):
        found = fits.fit_projections(images, layer, pooling, components=4, pooling=pooling)[layer]
        known = rows(fits.activations(images, layer, pooling=pooling)[layer])
        new = rows(fits.activations(pixels, layer, pooling=pooling)[layer])
        projected = fits.activations(pixels, layer, pooling=pooling, projections=[found.name])[layer]
        expected = PCA(4, svd_solver="full").fit(known).transform(new)
        np.testing.assert_allclose(projected, expected, atol=1e-4 * np.abs(expected).max())
    assert [projection.name for projection in fits.projections()] == [
        f"none.{layer}",
        f"spatial_mean.{layer}",
    ]


def test_there_are_no_components_without_variance(fits: Client, images: Array) -> None:
    """Of three different images, though 1,000 were asked for; and of one image four times."""
    few = np.concatenate([images[:3], images[:3]])
    found = fits.fit_projections(few, "fc", "few")["fc"]
    assert (found.images, found.components) == (6, 2)
    assert found.explained_variance_ratio.sum() == pytest.approx(1.0)
    same = fits.fit_projections(np.repeat(images[:1], 4, axis=0), "fc", "same")["fc"]
    assert (same.components, same.total_variance) == (1, 0.0)
    assert same.explained_variance_ratio.tolist() == [0.0]
    assert not fits.activations(images, "fc", projections=[same.name])["fc"][0].any()


def test_many_images_for_the_memory_are_fitted_at_random(repository: Path, images: Array) -> None:
    """The subspace is the same, the result says so, and the same seed gives the same."""
    generator = np.random.default_rng(6)
    many = np.concatenate([images, images[::-1, :, ::-1], np.roll(images, 9, axis=1)])
    many = np.clip(many.astype(int) + generator.integers(-9, 10, many.shape), 0, 255).astype(np.uint8)
    with (
        Server(repository, "--fitting-memory", "600KiB") as server,
        Client(server.address, model="lc") as client,
    ):
        layer = layers_of(client)[0]
        found = client.fit_projections(many, layer, "some", components=5, seed=1)[layer]
        assert not found.exact
        data = rows(client.activations(many, layer)[layer])
        expected = PCA(5, svd_solver="full").fit(data)
        np.testing.assert_allclose(found.explained_variance, expected.explained_variance_, rtol=1e-3)
        projected = client.activations(many, layer, projections=[found.name])[layer]
        assert np.degrees(subspace_angles(rows(projected), expected.transform(data))).max() < 2
        again = client.fit_projections(many, layer, "again", components=5, seed=1)[layer]
        np.testing.assert_allclose(again.explained_variance, found.explained_variance, rtol=1e-6)


def test_asyncio_fits_the_same(fits: Client, server: Server, paths: list[Path]) -> None:
    """From files of another size; problems arrive, too."""
    expected = fits.fit_projections(paths, ["layer1", "fc"], "sync", components=5)

    async def everything() -> dict[str, FittedProjection]:
        async with AsyncClient(server.address, model="lc") as other:
            found = await other.fit_projections(paths, ["layer1", "fc"], "async", components=5)
            assert len(await other.projections()) == 4
            await other.delete_projection("async.fc")
            with pytest.raises(ventral_client.UnreadableStimulus, match=r"stimulus 2 .*nowhere\.png"):
                await other.fit_projections([*paths[:2], "nowhere.png"], "fc", "none")
            with pytest.raises(ventral_client.UnknownProjection, match=r"no projection `async\.fc`"):
                await other.delete_projection("async.fc")
            return found

    found = asyncio.run(everything())
    for layer, fitted in found.items():
        np.testing.assert_allclose(fitted.explained_variance, expected[layer].explained_variance, rtol=1e-4)
    assert [projection.name for projection in fits.projections()] == [
        "async.layer1",
        "sync.fc",
        "sync.layer1",
    ]


def test_images_that_can_not_be_read_end_a_fit_or_are_left_out(
    fits: Client, paths: list[Path], tmp_path: Path
) -> None:
    """What the client can't open, and what the server can't decode."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    for wrong, words in ((tmp_path / "nowhere.png", "No such file"), (broken, "not an image|format")):
        some = [*paths[:5], wrong, *paths[5:]]
        with pytest.raises(ventral_client.UnreadableStimulus, match=words) as caught:
            fits.fit_projections(some, "fc", "none")
        assert (caught.value.index, caught.value.name) == (5, str(wrong))
        found = fits.fit_projections(some, "fc", "rest", skip_unreadable=True)["fc"]
        assert found.images == len(paths)
    assert [projection.name for projection in fits.projections()] == ["rest.fc"]


def test_what_can_not_be_is_refused(fits: Client, pixels: Array) -> None:
    """Here, or by the server."""
    for layers, name, arguments, kind, words in (
        (["layer9"], "pca", {}, ventral_client.UnknownLayer, "layer9"),
        (["fc"], "a b", {}, ventral_client.InvalidRequest, "letters, digits"),
        (["fc"], "pca", {"components": 0}, ventral_client.InvalidRequest, "components=0"),
        (["fc"], "pca", {"seed": -1}, ventral_client.InvalidRequest, "seed=-1"),
        (["fc"], "pca", {"projections": ["a"]}, ventral_client.InvalidRequest, "no projections, data type"),
        (["fc"], "pca", {"colour": "red"}, ventral_client.InvalidRequest, "no option 'colour'"),
    ):
        with pytest.raises(kind, match=words):
            fits.fit_projections(pixels, layers, name, **arguments)
    with pytest.raises(ventral_client.InvalidRequest, match="1 images don't vary"):
        fits.fit_projections(pixels[:1], ["fc"], "pca")
    assert fits.projections() == []


def test_a_fit_past_a_limit_says_which(repository: Path, pixels: Array) -> None:
    """And isn't tried again: nothing would be different."""
    for option, words in (("--fitting-disk", "fitting.disk"), ("--fitting-memory", "fitting.memory")):
        with Server(repository, option, "40KiB") as server:
            refusing = Refusing()
            with Front(server.address, refusing) as front, Client(front.address, model="lc") as client:
                with pytest.raises(ventral_client.TooMuch, match=words):
                    client.fit_projections(pixels, "layer1", "pca")
                assert [method for method, _ in refusing.asked] == ["GetModel", "FitProjections"]
                assert client.projections() == []


class Slow(Sequence[Array]):
    """Images of which the later ones come only when they are allowed to."""

    def __init__(self, images: Array, free: int) -> None:
        """`free` come at once."""
        self._images = images
        self._free = free
        self.reached = threading.Event()
        self.allowed = threading.Event()

    def __len__(self) -> int:
        """As many as there are."""
        return len(self._images)

    def __getitem__(self, index: int) -> Array:
        """One of them."""
        if index >= self._free:
            self.reached.set()
            assert self.allowed.wait(60)
        return self._images[index]


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[futures.Future[object]]:
    """Something that is done meanwhile."""
    with futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)


def test_a_client_that_leaves_leaves_nothing(repository: Path, images: Array) -> None:
    """The next fit has its place, and the disk that it needs."""
    # 4,096 values of 60 images and as many components are a little less.
    with Server(repository, "--fitting-disk", "2MiB") as server:
        slow = Slow(images, 40)
        client = Client(server.address, model="lc", retries=None)
        with in_background(lambda: client.fit_projections(slow, "layer1", "gone")) as gone:
            assert slow.reached.wait(60)
            client.close()
            slow.allowed.set()
            assert gone.exception(60) is not None
        with Client(server.address, model="lc") as other:
            found = other.fit_projections(images, "layer1", "next")
            assert found["layer1"].images == len(images)
            assert [projection.name for projection in other.projections()] == ["next.layer1"]


def test_a_fit_begins_again_when_the_server_died(repository: Path, images: Array, tmp_path: Path) -> None:
    """With the first image; nothing is left of the first attempt but what the system takes back."""
    with Server(repository, "--fitting-folder", str(tmp_path)) as server:
        slow = Slow(images, 40)
        with (
            Client(server.address, model="lc", retries=PATIENT) as client,
            in_background(lambda: client.fit_projections(slow, ["layer1", "fc"], "pca")) as fit,
        ):
            assert slow.reached.wait(60)
            server.kill()
            assert list(tmp_path.iterdir()) == []
            server.start()
            slow.allowed.set()
            found = cast(dict[str, FittedProjection], fit.result(60))
            assert {layer: fitted.images for layer, fitted in found.items()} == {"layer1": 60, "fc": 60}


def test_fits_wait_for_each_other(
    server: Server, fits: Client, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is complete, too."""
    slow, has_place, show = Slow(images, 40), threading.Event(), FitBars.show

    def show_and_tell(bars: FitBars, progress: pb.FitProgress) -> None:
        show(bars, progress)
        if progress.images > 0:
            has_place.set()

    monkeypatch.setattr(FitBars, "show", show_and_tell)
    with (
        in_background(lambda: fits.fit_projections(slow, "fc", "first")) as first,
        Client(server.address, model="lc") as other,
    ):
        assert slow.reached.wait(60)
        # A fit that waits takes no images.
        assert has_place.wait(60)
        with in_background(lambda: other.fit_projections(images, "fc", "second")) as second:
            assert not second.done()
            slow.allowed.set()
            for fit in (first, second):
                assert cast(dict[str, FittedProjection], fit.result(60))["fc"].images == len(images)
    assert [projection.name for projection in fits.projections()] == ["first.fc", "second.fc"]


def test_progress_is_shown(fits: Client, images: Array, capsys: pytest.CaptureFixture[str]) -> None:
    """Images, then layers."""
    fits.fit_projections(images, ["layer1", "fc"], "pca", progress=True)
    shown = capsys.readouterr().err
    assert "60/60" in shown and "image" in shown
    assert "2/2" in shown and "layer" in shown


def test_the_command_line_fits(fits: Client, server: Server, paths: list[Path]) -> None:
    """A line a layer; `extract` may use what was fitted."""
    common = ["--address", server.address, "--model", "lc"]
    shown = lines(
        run("fit", *common, "--layers", "layer1,fc", "--name", "pca", "--components", "5", paths[0].parent)
    )
    assert [line[:3] for line in shown] == [["pca.layer1", "layer1", "5"], ["pca.fc", "fc", "5"]]
    assert all(0 < float(share) <= 1 for *_, share in shown)
    refused = run("fit", *common, "--layers", "fc", "--name", "a/b", *paths)
    assert refused.returncode == 1 and "letters, digits" in refused.stderr


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with a network whose first layer has 65,536 values of an image."""
    folder = tmp_path_factory.mktemp("large")
    checkpoint = folder / "large.safetensors"
    network = ["--architecture", "resnet-cifar", "--blocks", "1", "--width", "16", "--classes", "10"]
    data = ["--input-size", "64", "--preprocessing", "unit-range", "--device", "cpu"]
    programs.run("trainer", "init", "--output", checkpoint, *network, *data)
    programs.run("exporter", "export", checkpoint, "--repository", folder / "models", "--model", "large")
    return folder / "models"


def peak_memory(process: int) -> int:
    """Bytes that a process has had in memory at most."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_is_bounded(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of several times the memory of a fit, and as large a projection, take no more than that."""
    bound = 48 << 20
    # Besides: what threads keep to multiply with, and single pages of the files.
    besides = 24 << 20
    # What is free goes back to the system at once: what the server's allocator keeps for later isn't the fit's.
    monkeypatch.setenv("MIMALLOC_PURGE_DELAY", "0")
    generator = np.random.default_rng(7)
    images = generator.integers(0, 256, (600, 64, 64, 3), np.uint8)
    options = [
        "--fitting-memory",
        str(bound),
        "--limits-stream-bytes",
        "32MiB",
        "--scheduling-maximum-batch",
        "8",
        # Each that multiplies keeps memory of its own.
        "--threads",
        "2",
    ]
    with Server(large, *options) as server, Client(server.address) as client:
        layer = client.model().layers[0]
        whole = 4 * len(images) * int(np.prod(client.model().shapes[layer]))
        assert whole > 3 * bound
        gathered, show = 0, FitBars.show

        def watch(bars: FitBars, progress: pb.FitProgress) -> None:
            nonlocal gathered
            show(bars, progress)
            if progress.phase == pb.FIT_PHASE_GATHERING:
                # What computing the activations takes by itself.
                gathered = peak_memory(server.process_id)

        monkeypatch.setattr(FitBars, "show", watch)
        found = client.fit_projections(images, layer, "pca", components=500)[layer]
        assert found.components == 500 and found.exact
        grown = peak_memory(server.process_id) - gathered
        assert grown < bound + besides, f"{grown >> 20} MiB, though {bound >> 20} MiB are allowed"
        # It is the fit's: that it takes next to nothing would say that this measures something else.
        assert grown > bound // 2, f"{grown >> 20} MiB"
