//! Divides a bundle's graph into segments that are computed one after another, each from the one value that the segment
//! before it ends with: what is in memory is then the weights of a segment and not of the network.

use std::collections::{HashMap, HashSet};

use proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, type_proto};

/// Bytes of constants in a segment, where the graph can be divided so finely.
pub(super) const SEGMENT_BYTES: u64 = 1 << 30;

/// A part of a graph.
#[derive(Debug)]
pub(super) struct Segment {
    /// The part as a model of its own, with one input.
    pub(super) model: ModelProto,
    /// The graph's outputs that it computes, and behind them, except in the last segment, the value that the next
    /// segment begins with.
    pub(super) outputs: Vec<String>,
    /// Whether the last of `outputs` is the next segment's input.
    pub(super) continues: bool,
}

/// Divides what computes `outputs` from the graph's input, a segment having at most `limit` bytes of constants where
/// that is possible: a graph can be divided only where everything that follows depends on a single value.
pub(super) fn divide(model: &ModelProto, outputs: &[&str], limit: u64) -> Vec<Segment> {
    let empty = GraphProto::default();
    let graph = model.graph.as_ref().unwrap_or(&empty);
    let nodes = early_leaves(needed(graph, outputs), outputs);
    let constants: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let cuts = cuts(&nodes, &constants);

    let mut segments = Vec::new();
    let mut input = graph.input.first().cloned().unwrap_or_default();
    let (mut start, mut bytes, mut last_cut) = (0, 0, None);
    for (index, node) in nodes.iter().enumerate() {
        let added = constant_bytes(node, &constants);
        // What has no constants costs nothing: the outputs behind a cut are computed before it.
        if let Some((end, value)) = last_cut.filter(|_| added > 0 && bytes + added > limit) {
            segments.push(segment(model, &nodes[start..end], &input, outputs, Some(value)));
            bytes = nodes[end..index]
                .iter()
                .map(|node| constant_bytes(node, &constants))
                .sum();
            (input, start, last_cut) = (float_value(value), end, None);
        }
        bytes += added;
        if let Some(value) = cuts.get(&index) {
            last_cut = Some((index + 1, *value));
        }
    }
    segments.push(segment(model, &nodes[start..], &input, outputs, None));
    segments
}

/// The nodes that the outputs depend on, in the graph's order.
fn needed<'a>(graph: &'a GraphProto, outputs: &[&'a str]) -> Vec<&'a NodeProto> {
    let mut values: HashSet<&str> = outputs.iter().copied().collect();
    let mut nodes = Vec::new();
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|output| values.contains(output.as_str())) {
            values.extend(node.input.iter().map(String::as_str));
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

/// The nodes in another order: those that lead to the last output alone as they were, and those that only give another
/// output directly behind what they depend on. Otherwise every early value would be needed to the end.
fn early_leaves<'a>(nodes: Vec<&'a NodeProto>, outputs: &[&'a str]) -> Vec<&'a NodeProto> {
    let mut trunk: HashSet<&str> = outputs.last().copied().into_iter().collect();
    for node in nodes.iter().rev() {
        if node.output.iter().any(|output| trunk.contains(output.as_str())) {
            trunk.extend(node.input.iter().map(String::as_str));
        }
    }
    let mut positions: HashMap<&str, usize> = HashMap::new();
    let mut order = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.into_iter().enumerate() {
        let leaf = !node.output.iter().any(|output| trunk.contains(output.as_str()));
        let inputs = node
            .input
            .iter()
            .filter_map(|input| positions.get(input.as_str()));
        let position = if leaf {
            inputs.copied().max().unwrap_or(0)
        } else {
            index
        };
        positions.extend(node.output.iter().map(|output| (output.as_str(), position)));
        order.push((position, leaf, node));
    }
    order.sort_by_key(|&(position, leaf, _)| (position, leaf));
    order.into_iter().map(|(.., node)| node).collect()
}

/// Nodes behind which the graph can be divided, by their positions, with the one value that is needed from then on.
fn cuts<'a>(nodes: &[&'a NodeProto], constants: &HashMap<&str, &TensorProto>) -> HashMap<usize, &'a str> {
    let mut last_use = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for input in &node.input {
            if !input.is_empty() && !constants.contains_key(input.as_str()) {
                last_use.insert(input.as_str(), index);
            }
        }
    }
    let mut cuts = HashMap::new();
    let mut live: HashSet<&str> = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        // The graph's input is alive where no node has made it.
        live.extend(
            node.input
                .iter()
                .map(String::as_str)
                .filter(|name| last_use.contains_key(name)),
        );
        live.extend(
            node.output
                .iter()
                .map(String::as_str)
                .filter(|name| last_use.contains_key(name)),
        );
        live.retain(|name| last_use[name] > index);
        if let [value] = live.iter().copied().collect::<Vec<_>>().as_slice() {
            cuts.insert(index, *value);
        }
    }
    cuts
}

/// As they are in memory: in single precision.
fn constant_bytes(node: &NodeProto, constants: &HashMap<&str, &TensorProto>) -> u64 {
    node.input
        .iter()
        .filter_map(|input| constants.get(input.as_str()))
        .map(|tensor| {
            let elements = tensor.dims.iter().map(|&length| length.unsigned_abs());
            elements.fold(4, u64::saturating_mul)
        })
        .sum()
}

fn segment(
    model: &ModelProto,
    nodes: &[&NodeProto],
    input: &ValueInfoProto,
    outputs: &[&str],
    next: Option<&str>,
) -> Segment {
    let computed: HashSet<&str> = nodes
        .iter()
        .flat_map(|node| node.output.iter().map(String::as_str))
        .collect();
    let used: HashSet<&str> = nodes
        .iter()
        .flat_map(|node| node.input.iter().map(String::as_str))
        .collect();
    let names: Vec<String> = outputs
        .iter()
        .copied()
        .filter(|output| computed.contains(output))
        .chain(next)
        .map(Into::into)
        .collect();
    let constants = model.graph.iter().flat_map(|graph| &graph.initializer);
    let graph = GraphProto {
        node: nodes.iter().copied().cloned().collect(),
        name: "segment".into(),
        initializer: constants
            .filter(|tensor| used.contains(tensor.name.as_str()))
            .cloned()
            .collect(),
        input: vec![input.clone()],
        output: names.iter().map(|name| float_value(name)).collect(),
        ..GraphProto::default()
    };
    Segment {
        model: ModelProto {
            graph: Some(graph),
            metadata_props: Vec::new(),
            ..model.clone()
        },
        outputs: names,
        continues: next.is_some(),
    }
}

/// A value whose shape is found out when it is computed.
fn float_value(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: proto::onnx::tensor_proto::DataType::Float.into(),
                shape: None,
            })),
        }),
        ..ValueInfoProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    /// Two residual blocks, the first of which has its sum as an output too: input → a → (b → c) + a = d → (e) + d = f.
    fn model() -> ModelProto {
        let constant = |name: &str| TensorProto {
            name: name.into(),
            dims: vec![5, 5],
            ..TensorProto::default()
        };
        ModelProto {
            graph: Some(GraphProto {
                node: vec![
                    node(&["input", "wa"], "a"),
                    node(&["a", "wb"], "b"),
                    node(&["b", "wc"], "c"),
                    node(&["c", "a"], "d"),
                    node(&["d", "we"], "e"),
                    node(&["e", "d"], "f"),
                    node(&["d"], "layer1/half"),
                    node(&["layer1/half"], "layer1"),
                    node(&["f"], "layer2"),
                    node(&["f"], "unused"),
                ],
                initializer: ["wa", "wb", "wc", "we"].map(constant).to_vec(),
                input: vec![float_value("input")],
                output: ["layer1", "layer2", "unused"].map(float_value).to_vec(),
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    fn parts(limit: u64) -> Vec<(String, Vec<String>, Vec<String>)> {
        divide(&model(), &["layer1", "layer2"], limit)
            .into_iter()
            .map(|segment| {
                let graph = segment.model.graph.unwrap();
                let names = graph.initializer.iter().map(|tensor| tensor.name.clone());
                assert_eq!(graph.output.len(), segment.outputs.len());
                (graph.input[0].name.clone(), names.collect(), segment.outputs)
            })
            .collect()
    }

    fn part(input: &str, constants: &[&str], outputs: &[&str]) -> (String, Vec<String>, Vec<String>) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        (input.into(), owned(constants), owned(outputs))
    }

    #[test]
    fn a_small_graph_stays_whole() {
        let whole = part("input", &["wa", "wb", "wc", "we"], &["layer1", "layer2"]);
        assert_eq!(parts(400), [whole]);
    }

    #[test]
    fn a_graph_is_divided_where_one_value_is_all_that_is_needed() {
        let expected = [
            part("input", &["wa"], &["a"]),
            part("a", &["wb", "wc"], &["layer1", "d"]),
            part("d", &["we"], &["layer2"]),
        ];
        assert_eq!(parts(100), expected);
        assert_eq!(parts(1), expected);
    }

    #[test]
    fn segments_are_as_large_as_the_limit_allows() {
        let expected = [
            part("input", &["wa", "wb", "wc"], &["layer1", "d"]),
            part("d", &["we"], &["layer2"]),
        ];
        assert_eq!(parts(300), expected);
    }
}
