//! Lowers a checkpoint's network to an ONNX graph of opset 17.
//!
//! Locally connected layers work on `[H, W, C, N]`, which makes them one gathering of blocks and one batched matrix
//! product of the weights with it. Every value's layout is tracked, and changed only where a convolution or a user needs
//! the other one.

mod batch_norm;
mod graph;
mod layout;
mod network;
mod unfolding;
mod unit;
mod values;

use std::collections::HashMap;

use model::{Checkpoint, Layer, WeightType};

pub(crate) use graph::{Graph, Initializer};

use self::graph::GraphBuilder;
use self::layout::Transpositions;
use self::values::LayerValue;
use crate::error::ExportError;

/// The version of the operators. The last that every consumer of the past years reads.
pub(crate) const OPSET_VERSION: i64 = 17;

/// The graph that computes the given layers of the checkpoint's network; each is an output of its name.
///
/// With `keep_preactivations` BatchNorm stays apart and the weights are the checkpoint's; otherwise it is folded into
/// them, and convolutions' own outputs don't exist. Input and outputs are float32 whatever the type of the weights.
///
/// # Errors
/// [`ExportError::BatchNorm`], [`ExportError::FoldedLayers`].
pub(crate) fn lower<'a>(
    checkpoint: &'a Checkpoint,
    layers: &[Layer],
    keep_preactivations: bool,
    weight_type: WeightType,
) -> Result<Graph<'a>, ExportError> {
    let mut lowering = Lowering {
        checkpoint,
        keep_preactivations,
        weight_type,
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
    weight_type: WeightType,
    graph: GraphBuilder<'a>,
    transpositions: Transpositions,
    values: HashMap<String, LayerValue>,
}

impl Lowering<'_> {
    /// What the graph computes in, up to the average pooling.
    fn compute_type(&self) -> WeightType {
        match self.weight_type {
            WeightType::Fp16 => WeightType::Fp16,
            WeightType::Fp32 | WeightType::Bf16 => WeightType::Fp32,
        }
    }
}
