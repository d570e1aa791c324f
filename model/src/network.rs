//! A network spelled out: stages, blocks and layers with names and shapes, in the order in which they are computed.

use crate::architecture::{Architecture, ArchitectureError, Connectivity, InputShape};

/// Height and width of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// A residual network, ready to be built: every shape in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The shape of one input image.
    pub input: InputShape,
    /// `conv1` and `bn1`; a ReLU named `relu` follows.
    pub stem: ConvolutionUnit,
    /// `maxpool`, where the stem has one.
    pub max_pool: Option<MaxPool>,
    /// `layer1`, `layer2`, …
    pub stages: Vec<Stage>,
    /// `fc`, on the spatial mean (`avgpool`) of the last stage.
    pub readout: Readout,
}

/// One stage of residual blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `layer1`, `layer2`, …
    pub name: String,
    /// The blocks in order; at least one.
    pub blocks: Vec<Block>,
}

/// A basic block: two convolutions with a ReLU between them, the residual added, another ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `layer2.0` and so on.
    pub name: String,
    /// `conv1` and `bn1`; the ReLU `relu1` follows.
    pub first: ConvolutionUnit,
    /// `conv2` and `bn2`; the residual is added to its output.
    pub second: ConvolutionUnit,
    /// `downsample.0` and `downsample.1`, where the residual changes its shape.
    pub downsample: Option<ConvolutionUnit>,
}

/// A convolution (or its locally connected form) and the BatchNorm after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvolutionUnit {
    /// The convolution; it has no bias.
    pub convolution: Convolution,
    /// Path of the BatchNorm's tensors: `layer2.0.bn1`, `layer2.0.downsample.1`.
    pub norm: String,
    /// The name under which users know the BatchNorm's output: `layer2.0.bn1`, `layer2.0.downsample`.
    pub norm_layer: String,
}

/// A convolution, or a layer of the same geometry whose weights aren't shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Module path: `conv1`, `layer2.0.conv1`, `layer2.0.downsample.0`.
    pub name: String,
    /// Whether every output position has its own kernel.
    pub locally_connected: bool,
    /// Cin.
    pub in_channels: usize,
    /// Cout.
    pub out_channels: usize,
    /// k; windows are square.
    pub kernel_size: usize,
    /// The same in both directions.
    pub stride: usize,
    /// Zeros on every side: (k − 1) / 2.
    pub padding: usize,
    /// Of the input.
    pub input: Resolution,
    /// Of the output: (in + 2·padding − k) / stride + 1.
    pub output: Resolution,
}

/// The 3x3 max pooling of stride 2 and padding 1 after ResNet-18's stem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPool {
    /// 3.
    pub kernel_size: usize,
    /// 2.
    pub stride: usize,
    /// 1; padded values never win.
    pub padding: usize,
    /// Of the output.
    pub output: Resolution,
}

/// The linear readout `fc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readout {
    /// Channels of the last stage.
    pub features: usize,
    /// Logits.
    pub classes: usize,
}

/// Name, shape and element type of a tensor that a checkpoint of the network holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// PyTorch's name of it; locally connected weights end in `.weights`.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// What it holds.
    pub role: TensorRole,
}

/// What a tensor of a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorRole {
    /// Trained; float32.
    Parameter,
    /// A running mean or variance of a BatchNorm; float32.
    RunningStatistic,
    /// A BatchNorm's `num_batches_tracked`; one int64.
    BatchCount,
}

impl Network {
    pub(crate) fn new(architecture: &Architecture) -> Result<Self, ArchitectureError> {
        let mut builder = Builder {
            connectivity: architecture.connectivity,
            built: 0,
        };
        let input = architecture.input;
        let resolution = Resolution {
            height: input.height,
            width: input.width,
        };
        let stem = architecture.stem;
        let stem_unit = builder.unit(
            ("conv1", "bn1", "bn1"),
            (input.channels, architecture.width),
            (stem.kernel_size, stem.stride),
            resolution,
        )?;
        let mut resolution = stem_unit.convolution.output;
        let max_pool = if stem.max_pool {
            Some(MaxPool::new(resolution)?)
        } else {
            None
        };
        if let Some(pool) = &max_pool {
            resolution = pool.output;
        }

        let mut channels = architecture.width;
        let mut stages = Vec::with_capacity(architecture.blocks.len());
        for (index, &count) in architecture.blocks.iter().enumerate() {
            let name = format!("layer{}", index + 1);
            let out_channels = u32::try_from(index)
                .ok()
                .and_then(|shift| 1_usize.checked_shl(shift))
                .and_then(|factor| architecture.width.checked_mul(factor))
                .ok_or(ArchitectureError::TooLarge)?;
            let mut blocks = Vec::with_capacity(count);
            for position in 0..count {
                let stride = if index > 0 && position == 0 { 2 } else { 1 };
                let geometry = (architecture.kernel_size, stride);
                let block = builder.block(
                    format!("{name}.{position}"),
                    (channels, out_channels),
                    geometry,
                    resolution,
                )?;
                resolution = block.output();
                channels = out_channels;
                blocks.push(block);
            }
            stages.push(Stage { name, blocks });
        }
        let readout = Readout {
            features: channels,
            classes: architecture.classes,
        };
        let network = Self {
            input,
            stem: stem_unit,
            max_pool,
            stages,
            readout,
        };
        network.check_size()?;
        Ok(network)
    }

    /// Every convolution in call order.
    pub fn convolutions(&self) -> impl Iterator<Item = &Convolution> {
        self.units().map(|unit| &unit.convolution)
    }

    /// Every convolution with its BatchNorm, in call order: in a block first, second, downsample.
    pub fn units(&self) -> impl Iterator<Item = &ConvolutionUnit> {
        let blocks = self
            .stages
            .iter()
            .flat_map(|stage| &stage.blocks)
            .flat_map(Block::units);
        std::iter::once(&self.stem).chain(blocks)
    }

    /// Height and width of the last stage's output, which `avgpool` averages.
    pub fn final_resolution(&self) -> Resolution {
        match self.stages.last().and_then(|stage| stage.blocks.last()) {
            Some(block) => block.output(),
            None => self.stem.convolution.output,
        }
    }

    /// Every tensor of a checkpoint, in the order in which it is stored.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = Vec::new();
        for unit in self.units() {
            let convolution = &unit.convolution;
            tensors.push(TensorSpec::parameter(
                convolution.weight_name(),
                convolution.weight_shape(),
            ));
            tensors.extend(unit.norm_tensors());
        }
        let Readout { features, classes } = self.readout;
        tensors.push(TensorSpec::parameter("fc.weight".into(), vec![classes, features]));
        tensors.push(TensorSpec::parameter("fc.bias".into(), vec![classes]));
        tensors
    }

    /// Trained numbers in the whole network.
    pub fn parameter_count(&self) -> usize {
        let parameters = self
            .tensors()
            .into_iter()
            .filter(|tensor| tensor.role == TensorRole::Parameter);
        parameters
            .map(|tensor| tensor.shape.iter().product::<usize>())
            .sum()
    }

    fn check_size(&self) -> Result<(), ArchitectureError> {
        // In bytes of float64, so that nothing later has to check a product of these again.
        let mut total = 8_usize;
        for tensor in self.tensors() {
            let elements = tensor
                .shape
                .iter()
                .try_fold(8_usize, |product, &dimension| product.checked_mul(dimension));
            total = elements
                .and_then(|elements| total.checked_add(elements))
                .ok_or(ArchitectureError::TooLarge)?;
        }
        if isize::try_from(total).is_err() {
            Err(ArchitectureError::TooLarge)
        } else {
            Ok(())
        }
    }
}

impl Block {
    /// Of the block's output.
    pub fn output(&self) -> Resolution {
        self.second.convolution.output
    }

    /// The block's convolutions in call order.
    pub fn units(&self) -> impl Iterator<Item = &ConvolutionUnit> {
        [&self.first, &self.second].into_iter().chain(&self.downsample)
    }
}

impl ConvolutionUnit {
    /// The BatchNorm's tensors: weight, bias, running mean and variance, each `[Cout]`, and the batch count.
    pub fn norm_tensors(&self) -> [TensorSpec; 5] {
        let shape = vec![self.convolution.out_channels];
        let tensor = |suffix: &str, shape: &[usize], role| TensorSpec {
            name: format!("{}.{suffix}", self.norm),
            shape: shape.to_vec(),
            role,
        };
        [
            tensor("weight", &shape, TensorRole::Parameter),
            tensor("bias", &shape, TensorRole::Parameter),
            tensor("running_mean", &shape, TensorRole::RunningStatistic),
            tensor("running_var", &shape, TensorRole::RunningStatistic),
            tensor("num_batches_tracked", &[], TensorRole::BatchCount),
        ]
    }
}

impl Convolution {
    /// The layer on its own, for an input of `input` pixels; `padding` is (k − 1) / 2.
    ///
    /// # Errors
    /// [`ArchitectureError::InputTooSmall`] where no output position is left; [`ArchitectureError::TooLarge`] where its
    /// inputs, outputs or one neuron's weights overflow what a computer can address.
    pub fn new(
        name: impl Into<String>,
        locally_connected: bool,
        (in_channels, out_channels): (usize, usize),
        (kernel_size, stride): (usize, usize),
        input: Resolution,
    ) -> Result<Self, ArchitectureError> {
        let name = name.into();
        let padding = (kernel_size - 1) / 2;
        let output = window_output(&name, input, kernel_size, stride, padding)?;
        let is_addressable = |lengths: [usize; 3]| {
            // In bytes of float64, as the network's size is checked.
            let bytes = lengths.into_iter().try_fold(8_usize, usize::checked_mul);
            bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
        };
        let products = [
            [in_channels, input.height, input.width],
            [out_channels, output.height, output.width],
            [in_channels, kernel_size, kernel_size],
        ];
        if !products.into_iter().all(is_addressable) {
            return Err(ArchitectureError::TooLarge);
        }
        Ok(Self {
            name,
            locally_connected,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            input,
            output,
        })
    }

    /// Name of the weight tensor in a checkpoint: `.weights` where locally connected, `.weight` where shared.
    pub fn weight_name(&self) -> String {
        let suffix = if self.locally_connected {
            "weights"
        } else {
            "weight"
        };
        format!("{}.{suffix}", self.name)
    }

    /// `[H_out, W_out, K, Cout]` where locally connected, `[Cout, Cin, k, k]` where shared.
    pub fn weight_shape(&self) -> Vec<usize> {
        if self.locally_connected {
            vec![
                self.output.height,
                self.output.width,
                self.fan_in(),
                self.out_channels,
            ]
        } else {
            vec![
                self.out_channels,
                self.in_channels,
                self.kernel_size,
                self.kernel_size,
            ]
        }
    }

    /// K = k²·Cin: inputs of one neuron, ordered (row a, column b, input channel i) in locally connected weights.
    pub fn fan_in(&self) -> usize {
        self.kernel_size * self.kernel_size * self.in_channels
    }

    /// Output positions: `H_out · W_out`.
    pub fn positions(&self) -> usize {
        self.output.height * self.output.width
    }

    /// Numbers in the weight tensor.
    pub fn weight_count(&self) -> usize {
        self.weight_shape().iter().product()
    }

    /// Multiply-accumulates for one image.
    pub fn macs(&self) -> usize {
        self.positions() * self.fan_in() * self.out_channels
    }
}

impl MaxPool {
    fn new(input: Resolution) -> Result<Self, ArchitectureError> {
        let (kernel_size, stride, padding) = (3, 2, 1);
        let output = window_output("maxpool", input, kernel_size, stride, padding)?;
        Ok(Self {
            kernel_size,
            stride,
            padding,
            output,
        })
    }
}

impl TensorSpec {
    fn parameter(name: String, shape: Vec<usize>) -> Self {
        Self {
            name,
            shape,
            role: TensorRole::Parameter,
        }
    }
}

/// Builds convolutions in call order, so that the first `n_first_conv` of them can be told apart.
struct Builder {
    connectivity: Connectivity,
    built: usize,
}

impl Builder {
    fn unit(
        &mut self,
        (name, norm, norm_layer): (&str, &str, &str),
        channels: (usize, usize),
        geometry: (usize, usize),
        input: Resolution,
    ) -> Result<ConvolutionUnit, ArchitectureError> {
        let locally_connected = match self.connectivity {
            Connectivity::Convolutional => false,
            Connectivity::LocallyConnected { n_first_conv } => self.built >= n_first_conv,
        };
        self.built += 1;
        let convolution = Convolution::new(name, locally_connected, channels, geometry, input)?;
        Ok(ConvolutionUnit {
            convolution,
            norm: norm.into(),
            norm_layer: norm_layer.into(),
        })
    }

    fn block(
        &mut self,
        name: String,
        (in_channels, out_channels): (usize, usize),
        (kernel_size, stride): (usize, usize),
        input: Resolution,
    ) -> Result<Block, ArchitectureError> {
        let path = |suffix: &str| format!("{name}.{suffix}");
        let (conv1, bn1) = (path("conv1"), path("bn1"));
        let first = self.unit(
            (&conv1, &bn1, &bn1),
            (in_channels, out_channels),
            (kernel_size, stride),
            input,
        )?;
        let (conv2, bn2) = (path("conv2"), path("bn2"));
        let second = self.unit(
            (&conv2, &bn2, &bn2),
            (out_channels, out_channels),
            (kernel_size, 1),
            first.convolution.output,
        )?;
        let downsample = if stride != 1 || in_channels != out_channels {
            let names = (path("downsample.0"), path("downsample.1"), path("downsample"));
            let names = (names.0.as_str(), names.1.as_str(), names.2.as_str());
            Some(self.unit(names, (in_channels, out_channels), (1, stride), input)?)
        } else {
            None
        };
        let residual = downsample.as_ref().map_or(input, |unit| unit.convolution.output);
        if residual != second.convolution.output {
            return Err(ArchitectureError::ResidualMismatch {
                block: name,
                kernel: kernel_size,
            });
        }
        Ok(Block {
            name,
            first,
            second,
            downsample,
        })
    }
}

/// The standard formula of a sliding window's output, in both directions.
fn window_output(
    layer: &str,
    input: Resolution,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Resolution, ArchitectureError> {
    let length = |extent: usize| {
        let padded = extent.checked_add(padding.checked_mul(2)?)?;
        Some(padded.checked_sub(kernel)? / stride + 1)
    };
    match (length(input.height), length(input.width)) {
        (Some(height), Some(width)) => Ok(Resolution { height, width }),
        _ => Err(ArchitectureError::InputTooSmall {
            layer: layer.into(),
            height: input.height,
            width: input.width,
            kernel,
            stride,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lc(size: usize, n_first_conv: usize) -> Network {
        let input = InputShape {
            channels: 3,
            height: size,
            width: size,
        };
        let connectivity = Connectivity::LocallyConnected { n_first_conv };
        Architecture::resnet18(input, 8, 10, connectivity)
            .network()
            .unwrap()
    }

    #[test]
    fn resnet18_has_the_shapes_of_torchvision() {
        let network = lc(224, 0);
        assert_eq!(
            network.stem.convolution.output,
            Resolution {
                height: 112,
                width: 112
            }
        );
        assert_eq!(
            network.max_pool.as_ref().unwrap().output,
            Resolution {
                height: 56,
                width: 56
            }
        );
        let outputs: Vec<_> = network
            .stages
            .iter()
            .map(|s| s.blocks[1].output().height)
            .collect();
        assert_eq!(outputs, [56, 28, 14, 7]);
        assert_eq!(network.convolutions().count(), 20);
        assert!(network.stages[0].blocks[0].downsample.is_none());
        let downsample = network.stages[1].blocks[0].downsample.as_ref().unwrap();
        assert_eq!(
            downsample.convolution.weight_name(),
            "layer2.0.downsample.0.weights"
        );
        assert_eq!(downsample.convolution.weight_shape(), [28, 28, 8, 16]);
        assert_eq!(downsample.norm_layer, "layer2.0.downsample");
    }

    #[test]
    fn the_first_convolutions_stay_convolutional_in_call_order() {
        let kinds: Vec<_> = lc(64, 3)
            .convolutions()
            .map(|c| c.locally_connected)
            .take(5)
            .collect();
        assert_eq!(kinds, [false, false, false, true, true]);
    }

    #[test]
    fn huge_networks_are_refused_instead_of_overflowing() {
        let input = InputShape {
            channels: 3,
            height: usize::MAX / 4,
            width: 3,
        };
        let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
        assert!(Architecture::resnet18(input, 64, 10, lc).network().is_err());
        let mut deep = Architecture::resnet18(input, 64, 10, Connectivity::Convolutional);
        deep.input = InputShape {
            channels: 3,
            height: 32,
            width: 32,
        };
        deep.blocks = vec![1; 80];
        assert_eq!(deep.network().unwrap_err(), ArchitectureError::TooLarge);
    }

    proptest! {
        #[test]
        fn the_output_is_what_counting_windows_gives(
            extent in 1_usize..60, kernel in 1_usize..8, stride in 1_usize..4,
        ) {
            let padding = (kernel - 1) / 2;
            let counted = (0..extent + 2 * padding).step_by(stride).filter(|s| s + kernel <= extent + 2 * padding);
            let resolution = Resolution { height: extent, width: extent + kernel };
            let convolution = Convolution::new("c", true, (2, 3), (kernel, stride), resolution);
            match convolution {
                Ok(convolution) => prop_assert_eq!(convolution.output.height, counted.count()),
                Err(_) => prop_assert_eq!(counted.count(), 0),
            }
        }
    }
}
