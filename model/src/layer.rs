//! The layers of a network as its users know them: by name, with shapes, in the order in which they are computed.

use serde::{Deserialize, Serialize};

use crate::network::{ConvolutionUnit, Network, Resolution};

/// A layer whose activations users can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// PyTorch module path: `conv1`, `layer2.0.relu1`, `layer4`, `fc`.
    pub name: String,
    /// What computes it.
    pub kind: LayerKind,
    /// Shape of one image's activations: `[C, H, W]`, for `fc` `[classes]`.
    pub shape: Vec<usize>,
}

/// What computes a layer's activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerKind {
    /// A convolution's output before its BatchNorm.
    Convolution,
    /// A locally connected layer's output before its BatchNorm.
    LocallyConnected,
    /// A BatchNorm's output, before any ReLU.
    BatchNorm,
    /// A ReLU inside a block or after the stem.
    Relu,
    /// The max pooling after the stem.
    MaxPool,
    /// A residual block's output.
    Block,
    /// A stage's output: that of its last block.
    Stage,
    /// The spatial mean of the last stage.
    AveragePool,
    /// The logits.
    Readout,
}

impl LayerKind {
    /// Whether it is a convolution's output before BatchNorm, which exporters leave out unless asked.
    pub fn is_preactivation(self) -> bool {
        matches!(self, Self::Convolution | Self::LocallyConnected)
    }
}

impl Network {
    /// Every layer that has a name, in the order in which it is computed.
    pub fn layers(&self) -> Vec<Layer> {
        let mut layers = Layers(Vec::new());
        layers.unit(&self.stem);
        let stem = &self.stem.convolution;
        layers.push("relu", LayerKind::Relu, stem.out_channels, stem.output);
        if let Some(pool) = &self.max_pool {
            layers.push("maxpool", LayerKind::MaxPool, stem.out_channels, pool.output);
        }
        for stage in &self.stages {
            for block in &stage.blocks {
                let first = &block.first.convolution;
                layers.unit(&block.first);
                layers.push(
                    format!("{}.relu1", block.name),
                    LayerKind::Relu,
                    first.out_channels,
                    first.output,
                );
                layers.unit(&block.second);
                if let Some(downsample) = &block.downsample {
                    layers.unit(downsample);
                }
                let channels = block.second.convolution.out_channels;
                layers.push(&block.name, LayerKind::Block, channels, block.output());
            }
            if let Some(last) = stage.blocks.last() {
                layers.push(
                    &stage.name,
                    LayerKind::Stage,
                    last.second.convolution.out_channels,
                    last.output(),
                );
            }
        }
        let pooled = Resolution { height: 1, width: 1 };
        layers.push("avgpool", LayerKind::AveragePool, self.readout.features, pooled);
        layers.0.push(Layer {
            name: "fc".into(),
            kind: LayerKind::Readout,
            shape: vec![self.readout.classes],
        });
        layers.0
    }
}

struct Layers(Vec<Layer>);

impl Layers {
    fn push(&mut self, name: impl Into<String>, kind: LayerKind, channels: usize, resolution: Resolution) {
        let shape = vec![channels, resolution.height, resolution.width];
        self.0.push(Layer {
            name: name.into(),
            kind,
            shape,
        });
    }

    fn unit(&mut self, unit: &ConvolutionUnit) {
        let convolution = &unit.convolution;
        let kind = if convolution.locally_connected {
            LayerKind::LocallyConnected
        } else {
            LayerKind::Convolution
        };
        self.push(
            &convolution.name,
            kind,
            convolution.out_channels,
            convolution.output,
        );
        self.push(
            &unit.norm_layer,
            LayerKind::BatchNorm,
            convolution.out_channels,
            convolution.output,
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::architecture::{Architecture, Connectivity, InputShape};

    #[test]
    fn names_are_those_of_pytorch_in_the_order_of_computation() {
        let input = InputShape {
            channels: 3,
            height: 64,
            width: 64,
        };
        let mut architecture = Architecture::resnet18(input, 4, 10, Connectivity::Convolutional);
        architecture.blocks = vec![1, 1];
        let layers = architecture.network().unwrap().layers();
        let names: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
        let expected = "conv1 bn1 relu maxpool \
            layer1.0.conv1 layer1.0.bn1 layer1.0.relu1 layer1.0.conv2 layer1.0.bn2 layer1.0 layer1 \
            layer2.0.conv1 layer2.0.bn1 layer2.0.relu1 layer2.0.conv2 layer2.0.bn2 \
            layer2.0.downsample.0 layer2.0.downsample layer2.0 layer2 avgpool fc";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            layers.iter().find(|layer| layer.name == "layer2").unwrap().shape,
            [8, 8, 8]
        );
    }
}
