//! Products of float16 factors: a graph whose matrix products and convolutions round their inputs to float16, which GPUs
//! multiply several times as fast. Sums, BatchNorm and what layers give stay float32.

use std::collections::HashSet;

use proto::onnx::attribute_proto::AttributeType;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::{AttributeProto, ModelProto, NodeProto};

/// Operators whose inputs are factors.
const PRODUCTS: [&str; 3] = ["MatMul", "Gemm", "Conv"];

/// What the names of rounded tensors end with.
const SUFFIX: &str = "/float16";

/// Puts casts around every product. ONNX Runtime folds those of weights when it loads the graph, so that they take half
/// the memory.
pub fn round_products(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let mut rounded = HashSet::new();
    let mut nodes = Vec::with_capacity(graph.node.len() * 2);
    for mut node in std::mem::take(&mut graph.node) {
        if !PRODUCTS.contains(&node.op_type.as_str()) || !node.domain.is_empty() {
            nodes.push(node);
            continue;
        }
        for input in node.input.iter_mut().filter(|input| !input.is_empty()) {
            let name = format!("{input}{SUFFIX}");
            if rounded.insert(name.clone()) {
                nodes.push(cast(input, &name, DataType::Float16));
            }
            *input = name;
        }
        let widened = node.output.iter_mut().map(|output| {
            let name = format!("{output}{SUFFIX}/product");
            let node = cast(&name, output, DataType::Float);
            *output = name;
            node
        });
        let widened: Vec<_> = widened.collect();
        nodes.push(node);
        nodes.extend(widened);
    }
    graph.node = nodes;
}

fn cast(input: &str, output: &str, to: DataType) -> NodeProto {
    NodeProto {
        input: vec![input.into()],
        output: vec![output.into()],
        op_type: "Cast".into(),
        name: format!("{output}/cast"),
        attribute: vec![AttributeProto {
            name: "to".into(),
            r#type: AttributeType::Int as i32,
            i: i64::from(to as i32),
            ..Default::default()
        }],
        ..Default::default()
    }
}
