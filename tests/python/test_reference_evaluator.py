"""Bundles by the ONNX project's reference implementation, against the authors' activations."""

from collections.abc import Callable

from conftest import Bundle
from golden import TOLERANCE, relative_errors, worst
from onnx.reference import ReferenceEvaluator


def test_every_layer_is_the_authors(bundle: Bundle, report: Callable[[str], None]) -> None:
    """On the whole golden batch."""
    evaluator = ReferenceEvaluator(str(bundle.path))
    found = dict(
        zip(evaluator.output_names, evaluator.run(None, {"input": bundle.golden.input}), strict=True)
    )
    errors = relative_errors(found, bundle.golden.layers)
    report(f"{bundle.name}, ReferenceEvaluator: {worst(errors)}")
    assert {layer: error for layer, error in errors.items() if error > TOLERANCE} == {}
