//! Lowers a convolution, or a locally connected layer, with the BatchNorm after it.

use model::{Checkpoint, Convolution, ConvolutionUnit};

use super::batch_norm::{BatchNorm, single_precision};
use super::graph::{GraphBuilder, integer, integers};
use super::layout::{Activation, Layout, Transpositions};
use super::{LayerValue, Lowering};
use crate::error::ExportError;
use crate::weights::{ChannelScaling, TensorData};

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
        let output = Activation::new(output, layout);
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
        let shift = TensorData::Floats(single_precision(&norm.shift));
        let shift_name = format!("{}/shift", unit.norm_layer);
        let shift = self
            .graph
            .initializer(shift_name, vec![convolution.out_channels], shift);
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
        let preactivation = Activation::new(value.clone(), layout);
        self.layer(&convolution.name, LayerValue::Map(preactivation));

        let name = |suffix: &str| format!("{}/{suffix}", unit.norm_layer);
        let shape = layout.channel_shape(convolution.out_channels);
        let scale = TensorData::Floats(single_precision(&norm.scale));
        let scale = self.graph.initializer(name("scale"), shape.clone(), scale);
        let shift = TensorData::Floats(single_precision(&norm.shift));
        let shift = self.graph.initializer(name("shift"), shape, shift);
        let scaled = self.graph.node("Mul", &[&value, &scale], name("scaled"), vec![]);
        Ok(self
            .graph
            .node("Add", &[&scaled, &shift], name("activation"), vec![]))
    }

    /// The weights as a constant, each output channel times its factor.
    fn weights(
        &mut self,
        convolution: &Convolution,
        factors: Option<Vec<f64>>,
    ) -> Result<String, ExportError> {
        let checkpoint: &Checkpoint = self.checkpoint;
        let tensor = checkpoint.tensor(&convolution.weight_name())?;
        // `[H_out, W_out, K, Cout]` or `[Cout, Cin, k, k]`.
        let run = if convolution.locally_connected {
            1
        } else {
            convolution.fan_in()
        };
        let data = TensorData::Stored {
            bytes: tensor.bytes,
            scaling: factors.map(|factors| ChannelScaling { factors, run }),
        };
        let name = format!("{}/weights", convolution.name);
        Ok(self.graph.initializer(name, convolution.weight_shape(), data))
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

    /// A locally connected layer on `[H, W, N, C]`: unfolded inputs `[H_out, W_out, N, K]` times the weights.
    fn locally_connected(
        &mut self,
        convolution: &Convolution,
        input: &Activation,
        weights: &str,
        output: String,
    ) -> String {
        let unfolded = unfold(&mut self.graph, &mut self.transpositions, convolution, input);
        self.graph.node("MatMul", &[&unfolded, weights], output, vec![])
    }
}

/// Every neuron's inputs, `[H_out, W_out, N, K]`: k² strided slices of the padded input, side by side, in the order
/// (row, column, input channel) of the weights.
fn unfold(
    graph: &mut GraphBuilder<'_>,
    transpositions: &mut Transpositions,
    convolution: &Convolution,
    input: &Activation,
) -> String {
    let name = &convolution.name;
    let (kernel, stride) = (convolution.kernel_size as i64, convolution.stride as i64);
    let padding = convolution.padding as i64;
    let mut value = transpositions.value(graph, input, Layout::PositionMajor);
    if padding > 0 {
        let pads = graph.integers(&[padding, padding, 0, 0, padding, padding, 0, 0]);
        value = graph.node("Pad", &[&value, &pads], format!("{name}/padded"), vec![]);
    }
    if kernel == 1 && stride == 1 {
        return value;
    }
    let axes = graph.integers(&Layout::PositionMajor.position_axes());
    let steps = graph.integers(&[stride; 2]);
    // One past the last row or column that a window's element meets.
    let end = |offset: i64, outputs: usize| offset + (outputs as i64 - 1) * stride + 1;
    let mut slices = Vec::with_capacity(convolution.kernel_size * convolution.kernel_size);
    for row in 0..kernel {
        for column in 0..kernel {
            let starts = graph.integers(&[row, column]);
            let ends = [
                end(row, convolution.output.height),
                end(column, convolution.output.width),
            ];
            let ends = graph.integers(&ends);
            let inputs = [value.as_str(), &starts, &ends, &axes, &steps];
            slices.push(graph.node("Slice", &inputs, format!("{name}/slice_{row}_{column}"), vec![]));
        }
    }
    match slices.as_slice() {
        [only] => only.clone(),
        _ => {
            let slices: Vec<_> = slices.iter().map(String::as_str).collect();
            let attributes = vec![integer("axis", 3)];
            graph.node("Concat", &slices, format!("{name}/unfolded"), attributes)
        }
    }
}

#[cfg(test)]
mod tests {
    use model::network::Resolution;

    use super::*;

    fn operators(kernel_size: usize, stride: usize) -> Vec<String> {
        let resolution = Resolution { height: 5, width: 7 };
        let convolution = Convolution::new("conv", true, (2, 3), (kernel_size, stride), resolution).unwrap();
        let (mut graph, mut transpositions) = (GraphBuilder::default(), Transpositions::default());
        let input = Activation::new("x/activation", Layout::PositionMajor);
        let unfolded = unfold(&mut graph, &mut transpositions, &convolution, &input);
        graph.output(&unfolded, &[]);
        let nodes = graph.finish().nodes;
        nodes.into_iter().map(|node| node.op_type).collect()
    }

    #[test]
    fn unfolding_does_no_more_than_the_geometry_needs() {
        assert_eq!(operators(1, 1), Vec::<String>::new());
        assert_eq!(operators(1, 2), ["Slice"]);
        assert_eq!(operators(2, 1), ["Slice", "Slice", "Slice", "Slice", "Concat"]);
        let mut three = vec!["Pad"];
        three.extend(["Slice"; 9]);
        three.push("Concat");
        assert_eq!(operators(3, 2), three);
    }
}
