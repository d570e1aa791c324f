"""What ONNX's own tools say about a graph."""

from collections.abc import Iterator

import onnx


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """A shape; what is unknown when the graph is made has a name."""
    return [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shapes and types of all values."""
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def assert_shapes_follow(model: onnx.ModelProto) -> None:
    """Checks that the outputs' declared shapes follow from the graph: the batch's size open, the others as declared."""
    undeclared = onnx.ModelProto()
    undeclared.CopyFrom(model)
    for output in undeclared.graph.output:
        output.type.tensor_type.ClearField("shape")
    for declared, found in zip(model.graph.output, inferred(undeclared).graph.output, strict=True):
        batch, *others = shape(found)
        # Not every operator hands the name on.
        assert isinstance(batch, str), f"{found.name}: the batch's size is fixed: {batch}"
        assert ["batch", *others] == shape(declared), found.name


def assert_operators_of(opset: int, model: onnx.ModelProto) -> None:
    """Checks every node's domain, attributes and types against the operators' schemas in an opset."""
    graph = inferred(model).graph
    types = dict(_element_types(graph))
    for node in graph.node:
        assert node.domain == ""
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        assert not schema.deprecated
        for attribute in node.attribute:
            assert attribute.name in schema.attributes, f"{node.op_type} has no {attribute.name}"
            assert attribute.type == schema.attributes[attribute.name].type.value
        for names, parameters in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for index, name in enumerate(names):
                # The last parameter may stand for many.
                parameter = parameters[min(index, len(parameters) - 1)]
                if name:
                    assert types[name] in parameter.types, f"{node.op_type} takes no {types[name]} ({name})"


def _element_types(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Every value's name and type, as operators' schemas write it."""
    for tensor in graph.initializer:
        yield tensor.name, f"tensor({onnx.TensorProto.DataType.Name(tensor.data_type).lower()})"
    for value in (*graph.input, *graph.value_info, *graph.output):
        name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        yield value.name, f"tensor({name.lower()})"
