"""What goes wrong says what to do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
import ventral_client
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from conftest import LAYERS
from damaged import damaged_png
from population import LABEL, LABELS
from servers import Server
from ventral_client import Retries
from ventral_client.brainscore import commitment, remote_activations_model

#: Enough repetitions, and soon.
QUICK = Retries(attempts=3, initial=0.01, maximum=0.05)


def test_a_server_that_dies_half_way_is_named(repository: Path, paths: list[str]) -> None:
    """And one that comes back is asked for the rest."""
    with Server(repository) as server:
        model = remote_activations_model(
            server.address, "lc", retries=QUICK, data_type="float32", in_flight=4
        )
        expected = model.from_paths(paths[:30], ["layer2"]).values

        def die(image: int, back: bool) -> None:
            rows = model.stream((model.preparation.pixels(path) for path in paths[:30]), ["layer2"])
            for index, row in enumerate(rows):
                np.testing.assert_allclose(row["layer2"].ravel(), expected[index], rtol=1e-5, atol=1e-6)
                if index == image:
                    server.kill()
                    if back:
                        server.start()
            assert index == 29

        die(10, back=True)
        with pytest.raises(ventral_client.NoServer) as caught:
            die(10, back=False)
        for part in (server.address, "is it running", "server --models"):
            assert part in str(caught.value)


def test_a_wrong_token_is_named(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One from the environment is taken where none is passed."""
    lines = programs.run("server", "token", "new", "--name", "ann").splitlines()
    token = lines[1]
    file = tmp_path / "tokens"
    file.write_text(lines[3] + "\n", encoding="utf-8")
    with Server(repository, "--security-tokens", str(file)) as server:
        monkeypatch.delenv("VENTRAL_TOKEN", raising=False)
        for wrong in (None, "not it"):
            with pytest.raises(ventral_client.NotAuthorised, match=r"pass token=…|VENTRAL_TOKEN"):
                remote_activations_model(server.address, "lc", token=wrong)
        monkeypatch.setenv("VENTRAL_TOKEN", token)
        assert remote_activations_model(server.address, "lc").layers()


def test_layers_that_do_not_exist_bring_the_nearest(server: Server, paths: list[str]) -> None:
    """When a commitment is made, and when activations are asked for."""
    model = remote_activations_model(server.address, "lc")
    with pytest.raises(ventral_client.UnknownLayer, match=r"has no layer `layer5`; the nearest: layer\d"):
        model.from_paths(paths[:1], ["layer5"])
    for wrong in (
        {"layers": ["layer1", "layr2"]},
        {"layers": LAYERS, "region_layer_map": {"V1": "layr2"}},
        {"layers": LAYERS, "region_layer_map": {"V1": ["layer1", "layr2"]}},
        {"layers": LAYERS, "region_layer_map": {"V1": "layer1"}, "behavioral_readout_layer": "layr2"},
    ):
        with pytest.raises(ventral_client.UnknownLayer, match=r"`layr2`; the nearest: layer2"):
            commitment(server.address, "lc", **wrong)
    with pytest.raises(ventral_client.UnknownModel, match=r"there are: .*lc"):
        remote_activations_model(server.address, "cl")


def test_stimuli_that_can_not_be_read_are_named(server: Server, paths: list[str], tmp_path: Path) -> None:
    """With their files, before or after others are answered."""
    model = remote_activations_model(server.address, "lc")
    text = tmp_path / "text.png"
    text.write_text("no image", encoding="utf-8")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(damaged_png())
    for wrong, problem in (
        (text, "cannot identify image file"),
        (damaged, "broken PNG file"),
        (tmp_path / "absent.png", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        for position in (0, 20):
            stimuli = [*paths[:position], str(wrong), *paths[20:40]]
            with pytest.raises(
                ventral_client.UnreadableStimulus, match=rf"{wrong.name}.*{problem}.*replace the file"
            ) as caught:
                model.from_paths(stimuli, ["layer4"])
            assert (caught.value.index, caught.value.name) == (position, str(wrong))


def test_logits_of_other_classes_are_refused(server: Server, paths: list[str], stimuli: StimulusSet) -> None:
    """In a label task too; the same values are there as a layer."""
    model = remote_activations_model(server.address, "ten")
    for layers in (["logits"], None):
        with pytest.raises(ventral_client.InvalidRequest, match=r"1,000 classes.*`fc` \[10\].*name is `fc`"):
            model.from_paths(paths[:2], layers)
    assert model.from_paths(paths[:2], ["fc"]).shape == (2, 10)
    for arguments in ({"layers": ["logits"]}, {"region_layer_map": {"IT": ["layer4", "logits"]}}):
        with pytest.raises(ventral_client.InvalidRequest, match="name is `fc`"):
            commitment(server.address, "ten", **arguments)
    candidate = commitment(server.address, "ten", region_layer_map={"V1": "layer1"})
    candidate.start_task(LABEL, LABELS)
    with pytest.raises(ventral_client.InvalidRequest, match="score it on neural benchmarks"):
        candidate.look_at(stimuli)


def test_logits_are_a_layer_like_others_where_they_are_imagenet_s(server: Server) -> None:
    """Among those that are selected from, and of an area."""
    candidate = commitment(
        server.address,
        "lc",
        layers=["layer4", "logits"],
        region_layer_map={"IT": ["logits"]},
        behavioral_readout_layer="logits",
    )
    assert candidate.layers == ["layer4", "logits"]
    assert candidate.layer_model.region_layer_map["IT"] == ["logits"]


def test_activations_beyond_half_precision_are_refused(server: Server) -> None:
    """They would be infinite; as they are, they aren't."""
    inputs = np.full((2, 3, 64, 64), 1e7, np.float32)
    half, exact = (
        remote_activations_model(server.address, "lc", data_type=data_type)
        for data_type in ("float16", "float32")
    )
    with pytest.raises(
        ventral_client.InvalidRequest, match=r"`relu`.*range of float16.*data_type=\"float32\""
    ):
        half.get_activations(inputs, ["relu"])
    assert 65504 < exact.get_activations(inputs, ["relu"])["relu"].max() < np.inf


def test_another_checkpoint_is_an_error(repository: Path, tmp_path: Path, paths: list[str]) -> None:
    """Its activations would be cached under the old one's identifier."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "lc").symlink_to(repository / "lc")
    with Server(models) as server:
        model = remote_activations_model(server.address, "lc", retries=QUICK)
        model.from_paths(paths[:2], ["layer4"])
        server.kill()
        (models / "lc").unlink()
        (models / "lc").symlink_to(repository / "lc-conv-init")
        server.start()
        with pytest.raises(ventral_client.ModelChanged, match="start again"):
            model.from_paths(paths[:2], ["layer4"])


def test_brain_score_is_imported_when_it_is_used() -> None:
    """And what is missing is named."""
    check = (
        "import sys, ventral_client.brainscore as b\n"
        "assert not any(name.startswith('brainscore') for name in sys.modules)\n"
        "sys.modules['brainscore_vision'] = None\n"
        "b.score('localhost:1', 'lc', 'MajajHong2015public.IT-pls')\n"
    )
    finished = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert "pip install 'ventral-client[brainscore]', with Python 3.11" in finished.stderr
