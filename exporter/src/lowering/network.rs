//! Lowers a network's stem, residual blocks, pooling and readout.

use model::manifest::INPUT_NAME;
use model::network::{MaxPool, Readout};
use model::{Block, Network};

use super::graph::{integer, integers};
use super::layout::{Activation, Layout};
use super::{LayerValue, Lowering};
use crate::error::ExportError;
use crate::weights::TensorData;

impl Lowering<'_> {
    /// Adds the whole network.
    pub(super) fn network(&mut self, network: &Network) -> Result<(), ExportError> {
        let input = network.input;
        self.graph
            .input(INPUT_NAME, &[input.channels, input.height, input.width]);
        let image = Activation::new(INPUT_NAME, Layout::ChannelsFirst);
        let normalised = self.unit(&network.stem, &image)?;
        let mut activation = self.relu("relu", &normalised);
        if let Some(pool) = &network.max_pool {
            activation = self.max_pool(pool, &activation);
        }
        for stage in &network.stages {
            for block in &stage.blocks {
                activation = self.block(block, &activation)?;
            }
            self.layer(&stage.name, LayerValue::Map(activation.clone()));
        }
        self.readout(&network.readout, &activation)
    }

    fn relu(&mut self, layer: &str, input: &Activation) -> Activation {
        let output = format!("{layer}/activation");
        let output = self.graph.node("Relu", &[&input.value], output, vec![]);
        let output = Activation::new(output, input.layout);
        self.layer(layer, LayerValue::Map(output.clone()));
        output
    }

    fn max_pool(&mut self, pool: &MaxPool, input: &Activation) -> Activation {
        let value = self
            .transpositions
            .value(&mut self.graph, input, Layout::ChannelsFirst);
        let attributes = vec![
            integers("kernel_shape", &[pool.kernel_size as i64; 2]),
            integers("pads", &[pool.padding as i64; 4]),
            integers("strides", &[pool.stride as i64; 2]),
        ];
        let output = self
            .graph
            .node("MaxPool", &[&value], "maxpool/activation", attributes);
        let output = Activation::new(output, Layout::ChannelsFirst);
        self.layer("maxpool", LayerValue::Map(output.clone()));
        output
    }

    /// The residual is added in the layout of the second convolution.
    fn block(&mut self, block: &Block, input: &Activation) -> Result<Activation, ExportError> {
        let first = self.unit(&block.first, input)?;
        let hidden = self.relu(&format!("{}.relu1", block.name), &first);
        let second = self.unit(&block.second, &hidden)?;
        let residual = match &block.downsample {
            Some(unit) => self.unit(unit, input)?,
            None => input.clone(),
        };
        let residual = self
            .transpositions
            .value(&mut self.graph, &residual, second.layout);
        let sum = format!("{}/sum", block.name);
        let sum = self.graph.node("Add", &[&second.value, &residual], sum, vec![]);
        Ok(self.relu(&block.name, &Activation::new(sum, second.layout)))
    }

    fn readout(&mut self, readout: &Readout, input: &Activation) -> Result<(), ExportError> {
        let axes = input.layout.position_axes();
        let attributes = vec![integers("axes", &axes), integer("keepdims", 0)];
        let pooled = self
            .graph
            .node("ReduceMean", &[&input.value], "avgpool/activation", attributes);
        self.layer("avgpool", LayerValue::Pooled(pooled.clone()));

        let weights = TensorData::Stored {
            bytes: self.checkpoint.tensor("fc.weight")?.bytes,
            scaling: None,
        };
        let shape = vec![readout.classes, readout.features];
        let weights = self.graph.initializer("fc/weights", shape, weights);
        let bias = TensorData::Stored {
            bytes: self.checkpoint.tensor("fc.bias")?.bytes,
            scaling: None,
        };
        let bias = self.graph.initializer("fc/bias", vec![readout.classes], bias);
        let inputs = [pooled.as_str(), &weights, &bias];
        let logits = self
            .graph
            .node("Gemm", &inputs, "fc/activation", vec![integer("transB", 1)]);
        self.layer("fc", LayerValue::Logits(logits));
        Ok(())
    }
}
