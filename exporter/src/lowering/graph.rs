//! Builds an ONNX graph: nodes, constants, inputs and outputs, and drops what no output needs.
//!
//! Names of values inside the graph contain a slash, which no layer's name does, so that they never collide with the
//! graph's outputs.

use std::collections::{BTreeMap, HashSet};

use proto::onnx::attribute_proto::AttributeType;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::tensor_shape_proto::{Dimension, dimension};
use proto::onnx::{AttributeProto, NodeProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};

use crate::weights::TensorData;

/// The name of the one dimension that isn't fixed.
pub(crate) const BATCH: &str = "batch";

/// A graph whose constants are still to be stored.
#[derive(Debug)]
pub(crate) struct Graph<'a> {
    /// In the order in which they can be computed.
    pub(crate) nodes: Vec<NodeProto>,
    /// In the order in which they are stored.
    pub(crate) initializers: Vec<Initializer<'a>>,
    /// What a caller gives.
    pub(crate) inputs: Vec<ValueInfoProto>,
    /// What a caller gets.
    pub(crate) outputs: Vec<ValueInfoProto>,
}

/// A named constant.
#[derive(Debug)]
pub(crate) struct Initializer<'a> {
    /// Of the value.
    pub(crate) name: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
    /// The elements.
    pub(crate) data: TensorData<'a>,
}

/// A graph being built.
#[derive(Debug, Default)]
pub(crate) struct GraphBuilder<'a> {
    nodes: Vec<NodeProto>,
    initializers: Vec<Initializer<'a>>,
    integers: BTreeMap<(Vec<usize>, Vec<i64>), String>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
}

impl<'a> GraphBuilder<'a> {
    /// Adds a node with one output, and returns the output's name.
    pub(crate) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: impl Into<String>,
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = output.into();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: operator.into(),
            attribute: attributes,
            ..NodeProto::default()
        });
        output
    }

    /// Adds a constant, and returns its name.
    pub(crate) fn initializer(
        &mut self,
        name: impl Into<String>,
        shape: Vec<usize>,
        data: TensorData<'a>,
    ) -> String {
        let name = name.into();
        self.initializers.push(Initializer {
            name: name.clone(),
            shape,
            data,
        });
        name
    }

    /// A list of integers as a constant; equal lists are one constant.
    pub(crate) fn integers(&mut self, values: &[i64]) -> String {
        let digits: Vec<_> = values.iter().map(ToString::to_string).collect();
        let name = format!("integers/{}", digits.join("_"));
        self.integer_constant(vec![values.len()], values, name)
    }

    /// Indices for a gathering, as a constant of the given shape; equal ones are one constant.
    pub(crate) fn indices(&mut self, shape: &[usize], values: &[i64]) -> String {
        let name = format!("indices/{}", self.integers.len());
        self.integer_constant(shape.to_vec(), values, name)
    }

    fn integer_constant(&mut self, shape: Vec<usize>, values: &[i64], name: String) -> String {
        let key = (shape.clone(), values.to_vec());
        if let Some(name) = self.integers.get(&key) {
            return name.clone();
        }
        self.integers.insert(key, name.clone());
        self.initializer(name, shape, TensorData::Integers(values.to_vec()))
    }

    /// Adds a node that converts a value's elements, and returns the output's name.
    pub(crate) fn cast(&mut self, value: &str, to: DataType, output: impl Into<String>) -> String {
        self.node(
            "Cast",
            &[value],
            output,
            vec![integer("to", i64::from(i32::from(to)))],
        )
    }

    /// Declares an input of the graph, float32 `[batch, …shape]`.
    pub(crate) fn input(&mut self, name: &str, shape: &[usize]) {
        self.inputs.push(batch_of(name, shape));
    }

    /// Declares a value as an output of the graph, float32 `[batch, …shape]`.
    pub(crate) fn output(&mut self, name: &str, shape: &[usize]) {
        self.outputs.push(batch_of(name, shape));
    }

    /// The graph without the nodes and constants that no output needs.
    pub(crate) fn finish(self) -> Graph<'a> {
        let mut needed: HashSet<String> = self.outputs.iter().map(|output| output.name.clone()).collect();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.into_iter().rev() {
            if node.output.iter().any(|output| needed.contains(output)) {
                needed.extend(node.input.iter().cloned());
                nodes.push(node);
            }
        }
        nodes.reverse();
        let mut initializers = self.initializers;
        initializers.retain(|initializer| needed.contains(&initializer.name));
        Graph {
            nodes,
            initializers,
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }
}

/// An attribute that is one integer.
pub(crate) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: value,
        r#type: AttributeType::Int.into(),
        ..AttributeProto::default()
    }
}

/// An attribute that is a list of integers.
pub(crate) fn integers(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints.into(),
        ..AttributeProto::default()
    }
}

fn batch_of(name: &str, shape: &[usize]) -> ValueInfoProto {
    let fixed = shape
        .iter()
        .map(|&length| dimension::Value::DimValue(length as i64));
    let dim = std::iter::once(dimension::Value::DimParam(BATCH.into()))
        .chain(fixed)
        .map(|value| Dimension { value: Some(value) })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float.into(),
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_output_needs_is_dropped() {
        let mut graph = GraphBuilder::default();
        graph.input("input", &[3]);
        let one = graph.initializer("one/value", vec![1], TensorData::float32(vec![1.0]));
        let two = graph.initializer("two/value", vec![1], TensorData::float32(vec![2.0]));
        let sum = graph.node("Add", &["input", &one], "sum/value", vec![]);
        graph.node("Mul", &[&sum, &two], "product/value", vec![]);
        let result = graph.node("Relu", &[&sum], "relu", vec![]);
        graph.output(&result, &[3]);
        let graph = graph.finish();
        let names: Vec<_> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["sum/value", "relu"]);
        let constants: Vec<_> = graph
            .initializers
            .iter()
            .map(|constant| constant.name.as_str())
            .collect();
        assert_eq!(constants, ["one/value"]);
    }

    #[test]
    fn equal_lists_are_one_constant() {
        let mut graph = GraphBuilder::default();
        let first = graph.integers(&[0, 1]);
        assert_eq!(graph.integers(&[0, 1]), first);
        assert_ne!(graph.integers(&[1, 0]), first);
        assert_eq!(graph.initializers.len(), 2);
    }
}
