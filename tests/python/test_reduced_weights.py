"""Bundles with weights of half the size: how far they are from the authors' activations, in which arithmetic."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import programs
import pytest
from conftest import FORMS, Bundle
from golden import relative_errors, worst
from graphs import assert_operators_of, assert_shapes_follow, shape
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file

OPSET = 17
IMAGES = Path(__file__).parents[2] / "data" / "fashion-mnist"
NETWORK = ("--blocks", "1,1", "--width", "4", "--initialisation", "conv", "--sleep-every", "10")


@dataclass(frozen=True)
class Weights:
    """A type of weights and what it costs."""

    option: str
    stored: int
    """The type of initializers with weights."""
    tolerance: float
    """The largest relative error of a layer: some steps of the type, as errors add up over the layers."""
    agreement: float
    """The smallest share of images whose class is that of float32 weights."""


WEIGHTS = (
    Weights("fp16", onnx.TensorProto.FLOAT16, 5e-3, 0.99),
    Weights("bf16", onnx.TensorProto.BFLOAT16, 3e-2, 0.98),
)


@pytest.fixture(scope="session", params=WEIGHTS, ids=lambda weights: weights.option)
def weights(request: pytest.FixtureRequest) -> Weights:
    """One of the types."""
    return request.param


@pytest.fixture(scope="session")
def reduced(bundle: Bundle, checkpoint: Path, weights: Weights) -> Bundle:
    """The bundle again, with such weights."""
    form = "unfolded" if bundle.unfolded else "folded"
    repository = checkpoint.parent / f"{form}-{weights.option}" / "models"
    options = ["--repository", repository, "--model", "lc", "--weights", weights.option, *FORMS[form]]
    programs.run("exporter", "export", checkpoint, *options)
    return Bundle(f"{bundle.name} {weights.option}", repository, bundle.golden, bundle.unfolded)


def test_the_format_is_kept(bundle: Bundle, reduced: Bundle) -> None:
    """Checker, shapes, operators; float32 input and outputs, those of the bundle with float32 weights."""
    onnx.checker.check_model(reduced.path, full_check=True)
    model = reduced.graph()
    assert_operators_of(OPSET, model)
    declared = [(value.name, shape(value)) for value in model.graph.output]
    assert_shapes_follow(model)
    assert [(value.name, shape(value)) for value in bundle.graph().graph.output] == declared
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT, value.name


def test_weights_are_stored_in_the_type(bundle: Bundle, reduced: Bundle, weights: Weights) -> None:
    """Those of convolutions and locally connected layers; the readout's stay float32."""
    stored = {tensor.name: tensor.data_type for tensor in reduced.graph().graph.initializer}
    names = {
        tensor.name
        for tensor in bundle.graph().graph.initializer
        if tensor.name.endswith("/weights") and tensor.name != "fc/weights"
    }
    assert names
    assert {name: stored[name] for name in names} == dict.fromkeys(names, weights.stored)
    assert stored["fc/weights"] == onnx.TensorProto.FLOAT


def test_layers_in_onnxruntime_are_close_to_the_authors(
    reduced: Bundle, weights: Weights, report: Callable[[str], None]
) -> None:
    """With ONNX Runtime's kernels for the CPU."""
    session = reduced.session()
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"input": reduced.golden.input}), strict=True))
    errors = relative_errors(found, reduced.golden.layers)
    report(f"{reduced.name}, ONNX Runtime: {worst(errors)}")
    assert {layer: error for layer, error in errors.items() if error > weights.tolerance} == {}


def test_layers_in_real_half_precision_are_close_to_the_authors(
    reduced: Bundle, weights: Weights, report: Callable[[str], None]
) -> None:
    """With the reference implementation, which computes every operator in the type that the graph says."""
    evaluator = ReferenceEvaluator(str(reduced.path))
    found = dict(
        zip(evaluator.output_names, evaluator.run(None, {"input": reduced.golden.input}), strict=True)
    )
    errors = relative_errors(found, reduced.golden.layers)
    report(f"{reduced.name}, ReferenceEvaluator: {worst(errors)}")
    assert {layer: error for layer, error in errors.items() if error > weights.tolerance} == {}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a locally connected network that tells ten classes apart, and what it computes for 500 images."""
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "data"
    data.mkdir()
    for images, (name, count) in product((True, False), (("train", 2000), ("t10k", 500))):
        file = f"{name}-images-idx3-ubyte" if images else f"{name}-labels-idx1-ubyte"
        content = gzip.decompress((IMAGES / f"{file}.gz").read_bytes())
        # The number of items follows the type.
        header, size = (16, 28 * 28) if images else (8, 1)
        start = content[:4] + count.to_bytes(4, "big") + content[8:header]
        (data / file).write_bytes(start + content[header : header + count * size])
    checkpoint, recording = folder / "lc.safetensors", folder / "lc.activations.safetensors"
    options = ["--batch-size", "32", "--learning-rate", "3e-3", "--seed", "1"]
    programs.run(
        "trainer", "train", "--output", checkpoint, "--data", data, "--epochs", "2", *NETWORK, *options
    )
    programs.run("trainer", "record", checkpoint, "--output", recording, "--data", data, "--images", "500")
    return folder


def test_classes_agree_with_those_of_float32_weights(
    trained: Path, weights: Weights, report: Callable[[str], None]
) -> None:
    """Of a trained network, on images that it wasn't trained on; what it computes in libtorch is the reference."""
    recorded = load_file(trained / "lc.activations.safetensors")
    images, expected = recorded["input"], recorded["fc"].argmax(axis=1)
    assert len(set(expected)) >= 5, "classes that tell nothing"
    for option, agreement in (("fp32", 1.0), (weights.option, weights.agreement)):
        repository = trained / weights.option / "models"
        options = ["--repository", repository, "--model", option, "--weights", option]
        programs.run("exporter", "export", trained / "lc.safetensors", *options)
        session = onnxruntime.InferenceSession(repository / option / "1" / "model.onnx")
        same = float((classes(session, images) == expected).mean())
        report(f"trained network {option}, ONNX Runtime: top-1 agreement {same:.1%} of {len(images)} images")
        assert same >= agreement


def classes(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """The class of every image."""
    return session.run(["fc"], {"input": images})[0].argmax(axis=1)
