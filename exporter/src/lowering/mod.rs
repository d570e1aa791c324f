//! Lowers a checkpoint's network to an ONNX graph of opset 17.
//!
//! Locally connected layers work on `[H, W, N, C]`, which makes them k² slices, a concatenation and one batched matrix
//! product with the checkpoint's own weights. Every value's layout is tracked, and changed only where a convolution, a
//! max pooling or a user needs the other one. What users get are leaves: whoever cuts them off pays nothing for them.

mod batch_norm;
mod graph;
mod layout;
mod network;
mod unit;

use std::collections::HashMap;

use model::{Checkpoint, Layer};

pub(crate) use graph::{Graph, Initializer};

use self::graph::GraphBuilder;
use self::layout::{Activation, Transpositions};
use crate::error::ExportError;

/// The version of the operators. The last that every consumer of the past years reads.
pub(crate) const OPSET_VERSION: i64 = 17;

/// The graph that computes the given layers of the checkpoint's network; each is an output of its name.
///
/// With `keep_preactivations` BatchNorm stays apart and the weights are the checkpoint's; otherwise it is folded into
/// them, and convolutions' own outputs don't exist.
///
/// # Errors
/// [`ExportError::BatchNorm`], [`ExportError::FoldedLayers`].
pub(crate) fn lower<'a>(
    checkpoint: &'a Checkpoint,
    layers: &[Layer],
    keep_preactivations: bool,
) -> Result<Graph<'a>, ExportError> {
    let mut lowering = Lowering {
        checkpoint,
        keep_preactivations,
        graph: GraphBuilder::default(),
        transpositions: Transpositions::default(),
        values: HashMap::new(),
    };
    lowering.network(checkpoint.network())?;
    lowering.outputs(layers)?;
    Ok(lowering.graph.finish())
}

/// A network being lowered.
struct Lowering<'a> {
    checkpoint: &'a Checkpoint,
    keep_preactivations: bool,
    graph: GraphBuilder<'a>,
    transpositions: Transpositions,
    values: HashMap<String, LayerValue>,
}

/// Where a layer's activations are in the graph.
#[derive(Clone, Debug)]
enum LayerValue {
    /// A feature map.
    Map(Activation),
    /// `[N, C]`, given to users as `[N, C, 1, 1]`.
    Pooled(String),
    /// `[N, classes]`.
    Logits(String),
}

impl Lowering<'_> {
    fn layer(&mut self, name: &str, value: LayerValue) {
        self.values.insert(name.into(), value);
    }

    fn outputs(&mut self, layers: &[Layer]) -> Result<(), ExportError> {
        for layer in layers {
            let name = layer.name.as_str();
            match self.values.get(name) {
                Some(LayerValue::Map(activation)) => {
                    self.transpositions.output(&mut self.graph, activation, name);
                }
                Some(LayerValue::Pooled(value)) => {
                    let axes = self.graph.integers(&[2, 3]);
                    self.graph.node("Unsqueeze", &[value, &axes], name, vec![]);
                }
                Some(LayerValue::Logits(value)) => {
                    self.graph.node("Identity", &[value], name, vec![]);
                }
                None => {
                    return Err(ExportError::FoldedLayers {
                        layers: vec![name.into()],
                    });
                }
            }
            self.graph.output(name, &layer.shape);
        }
        Ok(())
    }
}
