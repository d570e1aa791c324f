"""Bundles by the rules of the ONNX format: the official checker, shape inference, operators, external data."""

import json
from pathlib import Path

import onnx
from conftest import Bundle
from graphs import assert_operators_of, assert_shapes_follow, inferred, shape

#: What ONNX Runtime 1.17 and later read.
NEWEST_IR_VERSION = 9
#: The operators' version that every runtime in use knows.
OPSET = 17
#: The page size that readers map files with, and the size from which weights are external.
PAGE, EXTERNAL_BYTES = 4096, 1024


def test_the_official_checker_accepts_the_file(bundle: Bundle) -> None:
    """By path, so that the external data is looked at too."""
    onnx.checker.check_model(bundle.path, full_check=True)


def test_strict_shape_inference_agrees_with_the_file(bundle: Bundle, tmp_path: Path) -> None:
    """As tools for models of more than 2 GB run it."""
    output = tmp_path / "inferred.onnx"
    onnx.shape_inference.infer_shapes_path(
        bundle.path, output, check_type=True, strict_mode=True, data_prop=True
    )
    found = onnx.load(output, load_external_data=False).graph
    assert {value.name for value in found.value_info} >= {
        name for node in found.node for name in node.output
    } - {value.name for value in found.output}


def test_outputs_have_the_shapes_that_are_inferred(bundle: Bundle) -> None:
    """`[batch, C, H, W]`, and for `avgpool` and `fc` `[batch, C]`, as the file and the manifest declare them."""
    model = bundle.graph()
    manifest = json.loads({entry.key: entry.value for entry in model.metadata_props}["ventral"])
    declared = {output.name: shape(output) for output in model.graph.output}
    assert_shapes_follow(model)
    assert {output.name: shape(output) for output in inferred(model).graph.output} == declared
    assert {layer["name"]: ["batch", *layer["shape"]] for layer in manifest["layers"]} == declared
    for layer, dimensions in declared.items():
        assert dimensions[0] == "batch"
        assert dimensions[1:] == list(bundle.golden.layers[layer].shape[1:])
    assert [(value.name, shape(value)) for value in model.graph.input] == [
        ("input", ["batch", *bundle.golden.input.shape[1:]])
    ]


def test_every_layer_is_an_output(bundle: Bundle) -> None:
    """In the unfolded form all that the authors' network has, else what isn't folded away."""
    folded_away = ("conv1", "conv2", "downsample.0")
    expected = {layer for layer in bundle.golden.layers if bundle.unfolded or not layer.endswith(folded_away)}
    assert {output.name for output in bundle.graph().graph.output} == expected


def test_versions_are_old_enough_for_runtimes_in_use(bundle: Bundle) -> None:
    """One set of operators, the default one."""
    model = bundle.graph()
    assert model.ir_version <= NEWEST_IR_VERSION
    assert [entry.domain for entry in model.opset_import] == [""]
    assert model.opset_import[0].version >= OPSET
    assert not model.functions


def test_nodes_use_what_the_operators_have_had_since_opset_17(bundle: Bundle) -> None:
    """Operators of the default domain, their attributes, the types of their inputs and outputs."""
    assert_operators_of(OPSET, bundle.graph())


def test_weights_are_external_at_page_boundaries(bundle: Bundle) -> None:
    """So that reading the graph reads no weights, and readers map them into memory."""
    data = bundle.path.with_name("model.onnx.data")
    end = 0
    external = [tensor for tensor in bundle.graph().graph.initializer if tensor.external_data]
    assert external
    for tensor in external:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place["location"] == data.name
        offset, length = int(place["offset"]), int(place["length"])
        assert offset % PAGE == 0
        assert offset >= end, f"{tensor.name} overlaps another"
        end = offset + length
    assert end == data.stat().st_size


def test_large_weights_are_not_in_the_graph(bundle: Bundle) -> None:
    """Integers are, which shape inference looks at, and small vectors."""
    for tensor in bundle.graph().graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT64:
            assert tensor.external_data or len(tensor.raw_data) < EXTERNAL_BYTES, tensor.name
