"""Scores of a remote model equal those of the same network in this process, through the same code of Brain-Score's."""

from collections.abc import Callable

import numpy as np
import pytest
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from brainscore_vision import load_ceiling, load_metric
from brainscore_vision.benchmark_helpers.neural_common import NeuralBenchmark
from brainscore_vision.benchmark_helpers.screen import place_on_screen
from brainscore_vision.benchmarks import BenchmarkBase, ceil_score
from brainscore_vision.model_helpers.brain_transformation import ModelCommitment
from brainscore_vision.model_interface import BrainModel
from conftest import LAYERS
from local import LocalModel
from population import LABEL, LABELS, PROBABILITIES, VISUAL_DEGREES, Recording, choices, part
from servers import Server
from ventral_client.brainscore import commitment, score

REGIONS = {"V1": "layer1", "V2": "layer2", "V4": "layer2.1", "IT": "layer4"}
READOUT = "avgpool"

#: A score's greatest difference where activations are sent as they are.
EXACT = 1e-5


def neural(recording: Recording, metric: str) -> NeuralBenchmark:
    """The benchmark that Brain-Score would make of such an experiment."""
    return NeuralBenchmark(
        identifier=f"simulated.V1-{metric}",
        version=1,
        assembly=recording.average,
        similarity_metric=load_metric(metric),
        visual_degrees=VISUAL_DEGREES,
        number_of_trials=1,
        ceiling_func=lambda: load_ceiling("internal_consistency")(recording.repetitions),
        parent="V1",
    )


class I2nBenchmark(BenchmarkBase):
    """As `Rajalingham2018-i2n`, which fits a readout of objects and compares the patterns of confusion."""

    def __init__(self, stimuli: StimulusSet) -> None:
        """Half of the photographs fit the readout, the subject saw the other half."""
        self._fitting = part(stimuli, slice(0, None, 2), "even")
        self._stimuli = part(stimuli, slice(1, None, 2), "odd")
        self._metric = load_metric("i2n")
        self._assembly = choices(self._stimuli)
        super().__init__(
            "simulated-i2n", lambda: self._metric.ceiling(self._assembly), version=1, parent="behavior"
        )

    def __call__(self, candidate: BrainModel) -> Score:
        """The score."""
        screens = [
            place_on_screen(shown, candidate.visual_degrees(), VISUAL_DEGREES)
            for shown in (self._fitting, self._stimuli)
        ]
        candidate.start_task(PROBABILITIES, screens[0])
        return ceil_score(self._metric(candidate.look_at(screens[1]), self._assembly), self.ceiling)


class LabelBenchmark(BenchmarkBase):
    """As `Geirhos2021…-top1`: the share of photographs whose class is chosen among ten."""

    def __init__(self, stimuli: StimulusSet) -> None:
        """Of all photographs."""
        self._stimuli = stimuli
        super().__init__("simulated-top1", lambda: 1.0, version=1, parent="behavior")

    def __call__(self, candidate: BrainModel) -> Score:
        """The score; the choices themselves are its raw values."""
        stimuli = place_on_screen(self._stimuli, candidate.visual_degrees(), VISUAL_DEGREES)
        candidate.start_task(LABEL, LABELS)
        labels = candidate.look_at(stimuli)
        chosen = labels.values.reshape(-1)
        score = load_metric("accuracy")(chosen, self._stimuli["image_label"].values)
        score.attrs["choices"] = chosen
        return score


@pytest.fixture
def in_process(local: LocalModel) -> ModelCommitment:
    """The commitment of the network in this process; a new one, for what has done a task records no more."""
    return ModelCommitment(
        identifier="local",
        activations_model=local,
        layers=LAYERS,
        region_layer_map=REGIONS,
        behavioral_readout_layer=READOUT,
    )


def remote(server: Server, model: str = "lc", data_type: str = "float32") -> ModelCommitment:
    """The commitment of a network on the server; `lc` is the same network."""
    return commitment(
        server.address,
        model,
        layers=LAYERS,
        region_layer_map=REGIONS,
        behavioral_readout_layer=READOUT,
        data_type=data_type,
    )


@pytest.mark.parametrize("metric", ["pls", "ridge", "cka", "rdm"])
def test_neural_scores_are_equal(
    server: Server,
    in_process: ModelCommitment,
    recording: Recording,
    metric: str,
    report: Callable[[str], None],
) -> None:
    """On the simulated V1, with a ceiling."""
    benchmark = neural(recording, metric)
    expected, exact, rounded, other = (
        benchmark(candidate)
        for candidate in (
            in_process,
            remote(server),
            remote(server, data_type="float16"),
            remote(server, "lc-conv-init"),
        )
    )
    assert 0.9 < float(benchmark.ceiling) < 1
    assert float(expected.raw) > 0.02
    assert abs(float(other.raw) - float(expected.raw)) > 100 * EXACT
    for value in (float, lambda score: float(score.raw)):
        assert value(exact) == pytest.approx(value(expected), abs=EXACT)
        assert value(rounded) == pytest.approx(value(expected), abs=2e-3)
    report(_line(benchmark, expected, exact, rounded))


@pytest.mark.parametrize("benchmark", [I2nBenchmark, LabelBenchmark])
def test_behavioural_scores_are_equal(
    server: Server,
    in_process: ModelCommitment,
    stimuli: StimulusSet,
    benchmark: type[I2nBenchmark | LabelBenchmark],
    report: Callable[[str], None],
) -> None:
    """Choices by ImageNet's logits, and probabilities of a readout."""
    made = benchmark(stimuli)
    expected, exact, rounded = (
        made(candidate) for candidate in (in_process, remote(server), remote(server, data_type="float16"))
    )
    assert np.isfinite(float(expected))
    assert float(exact) == pytest.approx(float(expected), abs=EXACT)
    assert float(rounded) == pytest.approx(float(expected), abs=2e-2)
    if benchmark is LabelBenchmark:
        assert len(set(expected.attrs["choices"])) > 1
        assert list(exact.attrs["choices"]) == list(expected.attrs["choices"])
    report(_line(made, expected, exact, rounded))


def test_a_model_is_scored_without_a_plugin(
    server: Server, in_process: ModelCommitment, recording: Recording
) -> None:
    """`score` says of what its score is."""
    benchmark = neural(recording, "ridge")
    scored = score(server.address, "lc", benchmark, region_layer_map=REGIONS, data_type="float32")
    assert float(scored) == pytest.approx(float(benchmark(in_process)), abs=EXACT)
    assert scored.attrs["model_identifier"].startswith("lc-")
    assert scored.attrs["benchmark_identifier"] == benchmark.identifier


def test_an_untrained_network_with_conv_initialisation_is_more_like_v1(
    server: Server, recording: Recording, report: Callable[[str], None]
) -> None:
    """Than one whose positions draw their own weights, by the simulated population."""
    benchmark = neural(recording, "ridge")
    random, conv = (float(benchmark(remote(server, model))) for model in ("lc", "lc-conv-init"))
    assert conv > random
    report(f"untrained, ridge on the simulated V1: conv initialisation {conv:.3f}, random {random:.3f}")


def _line(benchmark: BenchmarkBase, expected: Score, exact: Score, rounded: Score) -> str:
    differences = (abs(float(other) - float(expected)) for other in (exact, rounded))
    return "{}: {:.4f}; sent as float32 {:.1e} from it, as float16 {:.1e}".format(
        benchmark.identifier, float(expected), *differences
    )
