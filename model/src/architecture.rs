//! What a network is, in the few numbers that define it. [`Network`] spells it out layer by layer.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::network::Network;

/// Residual blocks of a network at most; the deepest ResNet of the literature has 600.
const MAX_BLOCKS: u128 = 10_000;

/// A residual network of basic blocks: torchvision's ResNet-18 family and the CIFAR 6n+2 family, in any size.
///
/// Stage `i` has `width · 2^i` channels; every stage after the first halves the resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// The shape of one input image.
    pub input: InputShape,
    /// The first convolution, and whether a max pooling follows it.
    pub stem: Stem,
    /// Channels of the stem and of the first stage.
    pub width: usize,
    /// Residual blocks of every stage: `[2, 2, 2, 2]` for ResNet-18.
    pub blocks: Vec<usize>,
    /// Kernel size of the convolutions inside the blocks; 3 in every network of the paper.
    #[serde(default = "default_kernel_size")]
    pub kernel_size: usize,
    /// Values that the readout `fc` gives.
    pub classes: usize,
    /// Whether neurons share their weights.
    pub connectivity: Connectivity,
}

/// The shape of one input image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputShape {
    /// 3 for colour, 1 for grey images.
    pub channels: usize,
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
}

/// The first convolution of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stem {
    /// 7 in ResNet-18, 3 in the CIFAR family.
    pub kernel_size: usize,
    /// 2 in ResNet-18, 1 in the CIFAR family.
    pub stride: usize,
    /// Whether a 3x3 max pooling of stride 2 follows, as in ResNet-18.
    pub max_pool: bool,
}

/// Whether neurons of one feature map share their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Connectivity {
    /// They do: an ordinary convolutional network.
    Convolutional,
    /// Every output position has its own kernel.
    LocallyConnected {
        /// So many first convolutions, in call order, stay convolutional ("LC + 1st conv" of the paper is 1).
        #[serde(default)]
        n_first_conv: usize,
    },
}

/// Why an [`Architecture`] can't be built.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArchitectureError {
    /// A number that has to be positive is 0.
    #[error("architecture: `{field}` must be at least 1")]
    Zero {
        /// The field's name.
        field: &'static str,
    },
    /// A convolution or pooling has no output left.
    #[error(
        "architecture: the input is too small: `{layer}` gets {height}x{width} and its {kernel}x{kernel} window of \
         stride {stride} leaves nothing; use a larger input or fewer stages"
    )]
    InputTooSmall {
        /// The layer's name.
        layer: String,
        /// The layer's input height.
        height: usize,
        /// The layer's input width.
        width: usize,
        /// The layer's kernel size.
        kernel: usize,
        /// The layer's stride.
        stride: usize,
    },
    /// A residual addition would add tensors of different shapes.
    #[error(
        "architecture: kernel size {kernel} does not keep the resolution inside `{block}`, so its residual can't be \
         added; use an odd kernel size"
    )]
    ResidualMismatch {
        /// The block's name.
        block: String,
        /// The kernel size at fault.
        kernel: usize,
    },
    /// More blocks than any network has: their list alone would fill the memory.
    #[error("architecture: `blocks` adds up to {found} blocks, at most {MAX_BLOCKS} are supported")]
    TooManyBlocks {
        /// The sum of `blocks`.
        found: u128,
    },
    /// The network's size overflows what a computer can address.
    #[error("architecture: the number of weights overflows; check `width`, `blocks` and the input size")]
    TooLarge,
}

impl Architecture {
    /// torchvision's ResNet-18: 7x7/2 stem, max pooling, stages of 2 basic blocks; `width` 64 is the original.
    pub fn resnet18(input: InputShape, width: usize, classes: usize, connectivity: Connectivity) -> Self {
        let stem = Stem {
            kernel_size: 7,
            stride: 2,
            max_pool: true,
        };
        Self {
            input,
            stem,
            width,
            blocks: vec![2; 4],
            kernel_size: 3,
            classes,
            connectivity,
        }
    }

    /// ResNet-18 cut after its second stage: 10 layers, whose `layer2` the readout sees.
    pub fn short_resnet(input: InputShape, width: usize, classes: usize, connectivity: Connectivity) -> Self {
        Self {
            blocks: vec![2; 2],
            ..Self::resnet18(input, width, classes, connectivity)
        }
    }

    /// The CIFAR ResNet of 6n+2 layers: 3x3 stem without pooling, three stages of `n` blocks; `width` 16 is the original.
    pub fn resnet_cifar(
        n: usize,
        input: InputShape,
        width: usize,
        classes: usize,
        connectivity: Connectivity,
    ) -> Self {
        let stem = Stem {
            kernel_size: 3,
            stride: 1,
            max_pool: false,
        };
        Self {
            input,
            stem,
            width,
            blocks: vec![n; 3],
            kernel_size: 3,
            classes,
            connectivity,
        }
    }

    /// Spells the network out, computing and checking every shape.
    ///
    /// # Errors
    /// Any [`ArchitectureError`]; a network that this returns can be built as it stands.
    pub fn network(&self) -> Result<Network, ArchitectureError> {
        self.check_positive()?;
        self.check_blocks()?;
        Network::new(self)
    }

    fn check_blocks(&self) -> Result<(), ArchitectureError> {
        let found: u128 = self.blocks.iter().map(|&count| count as u128).sum();
        if found > MAX_BLOCKS {
            return Err(ArchitectureError::TooManyBlocks { found });
        }
        Ok(())
    }

    fn check_positive(&self) -> Result<(), ArchitectureError> {
        let fields = [
            ("input.channels", self.input.channels),
            ("input.height", self.input.height),
            ("input.width", self.input.width),
            ("stem.kernel_size", self.stem.kernel_size),
            ("stem.stride", self.stem.stride),
            ("width", self.width),
            ("blocks", self.blocks.len()),
            ("kernel_size", self.kernel_size),
            ("classes", self.classes),
        ];
        let blocks = self.blocks.iter().map(|&n| ("blocks", n));
        match fields.into_iter().chain(blocks).find(|&(_, value)| value == 0) {
            Some((field, _)) => Err(ArchitectureError::Zero { field }),
            None => Ok(()),
        }
    }
}

fn default_kernel_size() -> usize {
    3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(size: usize) -> InputShape {
        InputShape {
            channels: 3,
            height: size,
            width: size,
        }
    }

    #[test]
    fn full_lc_resnet18_has_the_weights_of_the_paper() {
        let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
        let network = Architecture::resnet18(input(224), 64, 1000, lc)
            .network()
            .unwrap();
        let weights: usize = network
            .convolutions()
            .map(super::super::network::Convolution::weight_count)
            .sum();
        assert_eq!(weights, 1_813_561_344);
    }

    #[test]
    fn cifar_family_has_6n_plus_2_layers() {
        for n in 1..=5 {
            let network = Architecture::resnet_cifar(n, input(32), 16, 10, Connectivity::Convolutional)
                .network()
                .unwrap();
            let downsamples = network
                .stages
                .iter()
                .flat_map(|s| &s.blocks)
                .filter(|b| b.downsample.is_some())
                .count();
            assert_eq!(network.convolutions().count() - downsamples + 1, 6 * n + 2);
        }
    }

    #[test]
    fn the_short_resnet_has_10_layers_and_ends_with_layer2() {
        let network = Architecture::short_resnet(input(224), 64, 1000, Connectivity::Convolutional)
            .network()
            .unwrap();
        let downsamples = network
            .stages
            .iter()
            .flat_map(|stage| &stage.blocks)
            .filter(|block| block.downsample.is_some());
        assert_eq!(network.convolutions().count() - downsamples.count() + 1, 10);
        assert_eq!(network.stages.len(), 2);
        assert_eq!(network.readout.features, 128);
    }

    #[test]
    fn zero_is_refused_by_name() {
        let mut architecture = Architecture::resnet18(input(64), 4, 10, Connectivity::Convolutional);
        architecture.blocks = vec![2, 0];
        assert_eq!(
            architecture.network().unwrap_err(),
            ArchitectureError::Zero { field: "blocks" }
        );
    }

    #[test]
    fn absurd_numbers_of_blocks_are_refused_before_they_are_made() {
        let mut architecture = Architecture::resnet18(input(64), 4, 10, Connectivity::Convolutional);
        for blocks in [vec![usize::MAX, usize::MAX], vec![1 << 40], vec![9_000, 1_001]] {
            let found = blocks.iter().map(|&count| count as u128).sum();
            architecture.blocks = blocks;
            let expected = ArchitectureError::TooManyBlocks { found };
            assert_eq!(architecture.network().unwrap_err(), expected);
        }
    }

    #[test]
    fn an_even_kernel_in_a_block_is_refused() {
        let mut architecture = Architecture::resnet_cifar(1, input(16), 4, 10, Connectivity::Convolutional);
        architecture.kernel_size = 2;
        let error = architecture.network().unwrap_err();
        assert!(
            matches!(error, ArchitectureError::ResidualMismatch { ref block, .. } if block == "layer1.0")
        );
    }

    #[test]
    fn json_round_trips_and_unknown_fields_are_refused() {
        let lc = Connectivity::LocallyConnected { n_first_conv: 1 };
        let architecture = Architecture::resnet18(input(64), 4, 10, lc);
        let json = serde_json::to_value(&architecture).unwrap();
        assert_eq!(
            serde_json::from_value::<Architecture>(json.clone()).unwrap(),
            architecture
        );
        let mut unknown = json;
        unknown["dilation"] = 2.into();
        assert!(serde_json::from_value::<Architecture>(unknown).is_err());
    }
}
