//! Lowers a convolution, or a locally connected layer, with the BatchNorm after it.

use model::{Convolution, ConvolutionUnit, WeightType};
use proto::onnx::tensor_proto::DataType;

use super::Lowering;
use super::batch_norm::{BatchNorm, single_precision};
use super::graph::integers;
use super::layout::{Activation, FeatureMap, Layout};
use super::unfolding::unfold;
use super::values::LayerValue;
use crate::error::ExportError;
use crate::weights::{StoredTensor, TensorData};

impl Layout {
    /// What a convolution wants its input in, and gives its output in.
    pub(super) fn of(convolution: &Convolution) -> Self {
        if convolution.locally_connected {
            Self::PositionMajor
        } else {
            Self::ChannelsFirst
        }
    }
}

impl FeatureMap {
    /// A convolution's output.
    fn of(convolution: &Convolution) -> Self {
        Self {
            channels: convolution.out_channels,
            height: convolution.output.height,
            width: convolution.output.width,
        }
    }
}

impl Lowering<'_> {
    /// Adds the unit's nodes and returns the BatchNorm's output.
    pub(super) fn unit(
        &mut self,
        unit: &ConvolutionUnit,
        input: &Activation,
    ) -> Result<Activation, ExportError> {
        let norm = BatchNorm::read(self.checkpoint, unit)?;
        let layout = Layout::of(&unit.convolution);
        let output = if self.keep_preactivations {
            self.separate(unit, &norm, input)?
        } else {
            self.folded(unit, norm, input)?
        };
        let output = Activation::new(output, layout, FeatureMap::of(&unit.convolution));
        self.layer(&unit.norm_layer, LayerValue::Map(output.clone()));
        Ok(output)
    }

    /// BatchNorm's scale in the weights, its shift as a bias.
    fn folded(
        &mut self,
        unit: &ConvolutionUnit,
        norm: BatchNorm,
        input: &Activation,
    ) -> Result<String, ExportError> {
        let convolution = &unit.convolution;
        let layout = Layout::of(convolution);
        let shape = if convolution.locally_connected {
            layout.channel_shape(convolution.out_channels)
        } else {
            // A convolution's own bias.
            vec![convolution.out_channels]
        };
        let shift = self.floats(format!("{}/shift", unit.norm_layer), shape, &norm.shift);
        let output = format!("{}/activation", unit.norm_layer);
        let weights = self.weights(convolution, Some(norm.scale))?;
        if convolution.locally_connected {
            let product = format!("{}/product", convolution.name);
            let product = self.locally_connected(convolution, input, &weights, product);
            Ok(self.graph.node("Add", &[&product, &shift], output, vec![]))
        } else {
            Ok(self.convolution(convolution, input, &[&weights, &shift], output))
        }
    }

    /// BatchNorm as two nodes of its own; the weights are the checkpoint's.
    fn separate(
        &mut self,
        unit: &ConvolutionUnit,
        norm: &BatchNorm,
        input: &Activation,
    ) -> Result<String, ExportError> {
        let convolution = &unit.convolution;
        let layout = Layout::of(convolution);
        let weights = self.weights(convolution, None)?;
        let value = format!("{}/activation", convolution.name);
        let value = if convolution.locally_connected {
            self.locally_connected(convolution, input, &weights, value)
        } else {
            self.convolution(convolution, input, &[&weights], value)
        };
        let preactivation = Activation::new(value.clone(), layout, FeatureMap::of(convolution));
        self.layer(&convolution.name, LayerValue::Map(preactivation));

        let name = |suffix: &str| format!("{}/{suffix}", unit.norm_layer);
        let shape = layout.channel_shape(convolution.out_channels);
        let scale = self.floats(name("scale"), shape.clone(), &norm.scale);
        let shift = self.floats(name("shift"), shape, &norm.shift);
        let scaled = self.graph.node("Mul", &[&value, &scale], name("scaled"), vec![]);
        Ok(self
            .graph
            .node("Add", &[&scaled, &shift], name("activation"), vec![]))
    }

    /// A few numbers as a constant of the type that the graph computes in.
    fn floats(&mut self, name: String, shape: Vec<usize>, values: &[f64]) -> String {
        let values = single_precision(values);
        let element = self.compute_type();
        self.graph
            .initializer(name, shape, TensorData::Floats { values, element })
    }

    /// The weights as a value, each output channel times its factor: `[Cout, Cin, k, k]` or `[H_out, W_out, Cout, K]`.
    fn weights(
        &mut self,
        convolution: &Convolution,
        factors: Option<Vec<f64>>,
    ) -> Result<String, ExportError> {
        let checkpoint = self.checkpoint;
        let tensor = checkpoint.tensor(&convolution.weight_name())?;
        let mut shape = convolution.weight_shape();
        if convolution.locally_connected {
            // The checkpoint has `[H_out, W_out, K, Cout]`. As the left factor of a product the weights are read row by
            // row and once, and it is the narrow unfolded input that the runtime's kernels copy into their own order.
            shape.swap(2, 3);
        }
        let data = TensorData::Stored(StoredTensor {
            checkpoint,
            bytes: tensor.bytes,
            channels: convolution.out_channels,
            fan_in: convolution.fan_in(),
            transposed: convolution.locally_connected,
            factors,
            element: self.weight_type,
        });
        let name = format!("{}/weights", convolution.name);
        let weights = self.graph.initializer(&name, shape, data);
        Ok(match self.weight_type {
            WeightType::Fp32 | WeightType::Fp16 => weights,
            WeightType::Bf16 => {
                self.graph
                    .cast(&weights, DataType::Float, format!("{}/widened", convolution.name))
            }
        })
    }

    /// An ordinary convolution on `[N, C, H, W]`; `constants` are the weights and, where there is one, the bias.
    fn convolution(
        &mut self,
        convolution: &Convolution,
        input: &Activation,
        constants: &[&str],
        output: String,
    ) -> String {
        let value = self
            .transpositions
            .value(&mut self.graph, input, Layout::ChannelsFirst);
        let (kernel, stride) = (convolution.kernel_size as i64, convolution.stride as i64);
        let attributes = vec![
            integers("kernel_shape", &[kernel; 2]),
            integers("pads", &[convolution.padding as i64; 4]),
            integers("strides", &[stride; 2]),
        ];
        let inputs: Vec<_> = std::iter::once(value.as_str())
            .chain(constants.iter().copied())
            .collect();
        self.graph.node("Conv", &inputs, output, attributes)
    }

    /// A locally connected layer on `[H, W, C, N]`: the weights `[H_out, W_out, Cout, K]` times the unfolded input
    /// `[H_out, W_out, K, N]`.
    fn locally_connected(
        &mut self,
        convolution: &Convolution,
        input: &Activation,
        weights: &str,
        output: String,
    ) -> String {
        let value = self
            .transpositions
            .value(&mut self.graph, input, Layout::PositionMajor);
        let unfolded = unfold(&mut self.graph, convolution, &value);
        self.graph.node("MatMul", &[weights, &unfolded], output, vec![])
    }
}
