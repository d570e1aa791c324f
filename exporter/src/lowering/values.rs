//! What the lowering has computed under the names that users know, and the graph's outputs made of it.
//!
//! Outputs are leaves, `[N, C, H, W]` in single precision: whoever cuts them off pays nothing for them.

use model::{Layer, WeightType};
use proto::onnx::tensor_proto::DataType;

use super::Lowering;
use super::layout::Activation;
use crate::error::ExportError;

/// Where a layer's activations are in the graph.
#[derive(Clone, Debug)]
pub(super) enum LayerValue {
    /// A feature map.
    Map(Activation),
    /// `[N, C]`, given to users as `[N, C, 1, 1]`.
    Pooled(String),
    /// `[N, classes]`.
    Logits(String),
}

impl Lowering<'_> {
    /// Remembers where a layer is.
    pub(super) fn layer(&mut self, name: &str, value: LayerValue) {
        self.values.insert(name.into(), value);
    }

    /// Makes outputs of the given layers.
    ///
    /// # Errors
    /// [`ExportError::FoldedLayers`] for a layer that isn't in the graph.
    pub(super) fn outputs(&mut self, layers: &[Layer]) -> Result<(), ExportError> {
        for layer in layers {
            let name = layer.name.as_str();
            match self.values.get(name) {
                Some(LayerValue::Map(activation)) if self.weight_type == WeightType::Fp16 => {
                    let half = format!("{name}/half");
                    self.transpositions.output(&mut self.graph, activation, &half);
                    self.graph.cast(&half, DataType::Float, name);
                }
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
