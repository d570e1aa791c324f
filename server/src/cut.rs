//! Cuts a graph down to what computes the requested outputs. ONNX Runtime computes the whole graph whatever outputs are
//! asked of it, so a session for an early layer needs a graph that ends there.

use std::collections::{HashMap, HashSet};

use proto::onnx::{GraphProto, ModelProto};
use thiserror::Error;

/// An output that the graph doesn't have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the graph has no output `{output}`")]
pub struct CutError {
    /// The name that was asked for.
    pub output: String,
}

/// The part of a model that computes `outputs`, in their order: the nodes, initializers and inputs that are reached by
/// walking back from them. The model's metadata stays behind.
///
/// # Errors
/// [`CutError`] where an output is not one of the graph's.
pub fn cut(model: &ModelProto, outputs: &[&str]) -> Result<ModelProto, CutError> {
    let empty = GraphProto::default();
    let graph = model.graph.as_ref().unwrap_or(&empty);
    let mut values = Vec::with_capacity(outputs.len());
    for &output in outputs {
        let value = graph.output.iter().find(|value| value.name == output);
        values.push(value.cloned().ok_or_else(|| CutError {
            output: output.into(),
        })?);
    }
    let reached = reach(graph, outputs);
    let graph = GraphProto {
        // The order of the nodes stays: a graph's nodes are sorted topologically.
        node: select(&graph.node, |node| {
            node.output.iter().any(|name| reached.contains(name.as_str()))
        }),
        name: graph.name.clone(),
        initializer: select(&graph.initializer, |tensor| {
            reached.contains(tensor.name.as_str())
        }),
        doc_string: String::new(),
        input: select(&graph.input, |value| reached.contains(value.name.as_str())),
        output: values,
        value_info: select(&graph.value_info, |value| reached.contains(value.name.as_str())),
    };
    Ok(ModelProto {
        ir_version: model.ir_version,
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        domain: model.domain.clone(),
        model_version: model.model_version,
        doc_string: String::new(),
        graph: Some(graph),
        opset_import: model.opset_import.clone(),
        metadata_props: Vec::new(),
    })
}

/// Names of every value that the outputs depend on, and of the outputs themselves.
fn reach<'a>(graph: &'a GraphProto, outputs: &[&'a str]) -> HashSet<&'a str> {
    let mut producers = HashMap::new();
    for node in &graph.node {
        for output in &node.output {
            producers.insert(output.as_str(), node);
        }
    }
    let mut reached = HashSet::new();
    let mut pending = outputs.to_vec();
    while let Some(name) = pending.pop() {
        // An empty name stands for an optional input that is left out.
        if name.is_empty() || !reached.insert(name) {
            continue;
        }
        if let Some(node) = producers.get(name) {
            pending.extend(node.input.iter().map(String::as_str));
        }
    }
    reached
}

fn select<T: Clone>(items: &[T], keep: impl Fn(&T) -> bool) -> Vec<T> {
    items.iter().filter(|item| keep(item)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::onnx::{NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto};

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto {
            name: name.into(),
            ..Default::default()
        }
    }

    fn node(inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            ..Default::default()
        }
    }

    /// `input` → `a` (weight `wa`) → `b` (`wb`) and `c` (`wc`) → `d` = b + c.
    fn diamond() -> ModelProto {
        let initializer = |name: &str| TensorProto {
            name: name.into(),
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![
                node(&["input", "wa"], "a"),
                node(&["a", "", "wb"], "b"),
                node(&["a", "wc"], "c"),
                node(&["b", "c"], "d"),
            ],
            initializer: ["wa", "wb", "wc"].map(initializer).to_vec(),
            input: vec![value("input")],
            output: ["a", "b", "d"].map(value).to_vec(),
            value_info: vec![value("c")],
            ..Default::default()
        };
        ModelProto {
            ir_version: 8,
            graph: Some(graph),
            metadata_props: vec![StringStringEntryProto::default()],
            ..Default::default()
        }
    }

    fn parts(model: &ModelProto) -> (Vec<String>, Vec<String>) {
        let graph = model.graph.as_ref().unwrap();
        let nodes = graph.node.iter().map(|node| node.output[0].clone()).collect();
        (
            nodes,
            graph
                .initializer
                .iter()
                .map(|tensor| tensor.name.clone())
                .collect(),
        )
    }

    #[test]
    fn only_what_the_output_depends_on_is_kept() {
        let cut = cut(&diamond(), &["b"]).unwrap();
        let (nodes, initializers) = parts(&cut);
        assert_eq!(
            (nodes, initializers),
            (vec!["a".into(), "b".into()], vec!["wa".into(), "wb".into()])
        );
        let graph = cut.graph.as_ref().unwrap();
        assert_eq!(graph.input, [value("input")]);
        assert_eq!(graph.output, [value("b")]);
        assert!(graph.value_info.is_empty());
        assert!(cut.metadata_props.is_empty());
        assert_eq!(cut.ir_version, 8);
    }

    #[test]
    fn several_outputs_keep_their_union_in_the_order_asked_for() {
        let cut = cut(&diamond(), &["d", "a"]).unwrap();
        assert_eq!(parts(&cut).0, ["a", "b", "c", "d"]);
        let graph = cut.graph.unwrap();
        assert_eq!(graph.output, [value("d"), value("a")]);
        assert_eq!(graph.value_info, [value("c")]);
    }

    #[test]
    fn a_value_that_is_no_output_is_refused() {
        assert_eq!(
            cut(&diamond(), &["c"]).unwrap_err(),
            CutError { output: "c".into() }
        );
    }
}
