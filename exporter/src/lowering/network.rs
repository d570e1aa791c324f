//! Lowers a network's stem, residual blocks, pooling and readout.

use model::manifest::INPUT_NAME;
use model::network::{MaxPool, Readout};
use model::{Block, Network, WeightType};
use proto::onnx::tensor_proto::DataType;

use super::Lowering;
use super::graph::{integer, integers};
use super::layout::{Activation, FeatureMap, Layout};
use super::unfolding;
use super::values::LayerValue;
use crate::error::ExportError;
use crate::weights::{StoredTensor, TensorData};

impl Lowering<'_> {
    /// Adds the whole network.
    pub(super) fn network(&mut self, network: &Network) -> Result<(), ExportError> {
        let input = network.input;
        self.graph
            .input(INPUT_NAME, &[input.channels, input.height, input.width]);
        let image = match self.compute_type() {
            WeightType::Fp16 => self.graph.cast(INPUT_NAME, DataType::Float16, "input/half"),
            WeightType::Fp32 | WeightType::Bf16 => INPUT_NAME.into(),
        };
        let shape = FeatureMap {
            channels: input.channels,
            height: input.height,
            width: input.width,
        };
        let image = Activation::new(image, Layout::ChannelsFirst, shape);
        let normalised = self.unit(&network.stem, &image)?;
        let mut activation = self.relu("relu", &normalised);
        if let Some(pool) = &network.max_pool {
            // Pooling and ReLU may change places, and a quarter of the values are left for the ReLU.
            let pooled = self.max_pool(pool, &normalised);
            activation = self.relu("maxpool", &pooled);
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
        let output = input.with_value(output);
        self.layer(layer, LayerValue::Map(output.clone()));
        output
    }

    /// In the layout that the input has.
    fn max_pool(&mut self, pool: &MaxPool, input: &Activation) -> Activation {
        let output = match input.layout {
            Layout::PositionMajor => unfolding::max_pool(&mut self.graph, pool, input),
            Layout::ChannelsFirst => {
                let attributes = vec![
                    integers("kernel_shape", &[pool.kernel_size as i64; 2]),
                    integers("pads", &[pool.padding as i64; 4]),
                    integers("strides", &[pool.stride as i64; 2]),
                ];
                self.graph
                    .node("MaxPool", &[&input.value], "maxpool/pooled", attributes)
            }
        };
        let shape = FeatureMap {
            channels: input.shape.channels,
            height: pool.output.height,
            width: pool.output.width,
        };
        Activation::new(output, input.layout, shape)
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
        Ok(self.relu(&block.name, &second.with_value(sum)))
    }

    /// In single precision.
    fn readout(&mut self, readout: &Readout, input: &Activation) -> Result<(), ExportError> {
        let value = match self.compute_type() {
            WeightType::Fp16 => self.graph.cast(&input.value, DataType::Float, "avgpool/input"),
            WeightType::Fp32 | WeightType::Bf16 => input.value.clone(),
        };
        let attributes = vec![
            integers("axes", &input.layout.position_axes()),
            integer("keepdims", 0),
        ];
        let name = "avgpool/activation";
        let pooled = match input.layout {
            Layout::ChannelsFirst => self.graph.node("ReduceMean", &[&value], name, attributes),
            Layout::PositionMajor => {
                let by_channel = self
                    .graph
                    .node("ReduceMean", &[&value], "avgpool/by_channel", attributes);
                let permutation = vec![integers("perm", &[1, 0])];
                self.graph.node("Transpose", &[&by_channel], name, permutation)
            }
        };
        self.layer("avgpool", LayerValue::Pooled(pooled.clone()));

        let shape = vec![readout.classes, readout.features];
        let weights = self.stored("fc/weights", shape, "fc.weight")?;
        let bias = self.stored("fc/bias", vec![readout.classes], "fc.bias")?;
        let inputs = [pooled.as_str(), &weights, &bias];
        let logits = self
            .graph
            .node("Gemm", &inputs, "fc/activation", vec![integer("transB", 1)]);
        self.layer("fc", LayerValue::Logits(logits));
        Ok(())
    }

    /// A tensor of the checkpoint as a constant, as it is.
    fn stored(&mut self, name: &str, shape: Vec<usize>, tensor: &str) -> Result<String, ExportError> {
        let checkpoint = self.checkpoint;
        let bytes = checkpoint.tensor(tensor)?.bytes;
        let data = TensorData::Stored(StoredTensor {
            checkpoint,
            bytes,
            channels: 1,
            fan_in: shape.iter().skip(1).product(),
            transposed: false,
            factors: None,
            element: WeightType::Fp32,
        });
        Ok(self.graph.initializer(name, shape, data))
    }
}
