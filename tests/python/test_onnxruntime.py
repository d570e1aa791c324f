"""Bundles in ONNX Runtime's Python package, against the authors' activations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Bundle
from golden import TOLERANCE, relative_error, relative_errors, worst

#: The largest relative difference between the results for an image in two batches, or by two graphs.
SAME = 1e-5


def run(session: onnxruntime.InferenceSession, images: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": images}), strict=True))


@pytest.mark.parametrize("batch", [1, 2, None], ids=["1", "2", "all"])
def test_every_layer_is_the_authors(bundle: Bundle, batch: int | None, report: Callable[[str], None]) -> None:
    """With batches of any size."""
    images = bundle.golden.input[:batch]
    found = run(bundle.session(), images)
    errors = relative_errors(found, {layer: values[:batch] for layer, values in bundle.golden.layers.items()})
    report(f"{bundle.name}, ONNX Runtime, batch of {len(images)}: {worst(errors)}")
    assert {layer: error for layer, error in errors.items() if error > TOLERANCE} == {}


def test_an_image_gives_the_same_in_any_batch(bundle: Bundle) -> None:
    """At any place in the batch, beside any others."""
    session, images = bundle.session(), bundle.golden.input
    together = run(session, images)
    for index in range(len(images)):
        alone = run(session, images[index : index + 1])
        for layer, values in alone.items():
            assert relative_error(together[layer][index : index + 1], values) <= SAME, layer
    for layer, values in run(session, images[::-1]).items():
        assert relative_error(values[::-1], together[layer]) <= SAME, layer


def test_a_file_extracted_by_onnx_gives_the_same(bundle: Bundle, tmp_path: Path) -> None:
    """`onnx.utils.extract_model` copies the weights that the layers need into a file of its own."""
    path = tmp_path / "layer2.onnx"
    onnx.utils.extract_model(bundle.path, path, ["input"], ["layer1", "layer2"])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    whole = run(bundle.session(), bundle.golden.input)
    for layer, values in run(session, bundle.golden.input).items():
        assert relative_error(values, whole[layer]) <= SAME, layer
