//! What a training step keeps of its activations, and what it needs beside them.
//!
//! For its backward pass a unit (convolution, BatchNorm) keeps its convolution's output, which BatchNorm needs, and a ReLU
//! its own output, which is the next convolution's input. Everything else is gone before the next unit is computed.

use model::network::{Block, ConvolutionUnit};
use model::{Convolution, Network};

use super::{Need, SINGLE, Setup, need};
use crate::precision::Precision;

/// Copies of its largest activation that a layer's backward pass holds at a time: the gradients of output, BatchNorm's
/// input and the residual branch, one of them transposed, and the input's gradient.
const WORKING_COPIES: u64 = 5;

/// Activations that are kept for the backward pass, and the memory of the layer that needs most on the way.
pub(super) fn step(network: &Network, setup: &Setup) -> Need {
    let images = setup.at_a_time() as u64;
    let half = setup.precision != Precision::Fp32;
    let stem = stem(network, half);
    let blocks: Vec<&Block> = network.stages.iter().flat_map(|stage| &stage.blocks).collect();
    let kept_of = |block: &&Block| kept(block, half);
    let (kept, note) = if setup.recompute {
        // The inputs of all blocks, and what one segment keeps while it is computed again.
        let inputs: u64 = blocks.iter().map(|block| output(&block.second)).sum::<u64>() + stem.output;
        let segment = blocks.iter().map(kept_of).max().unwrap_or(0).max(stem.kept);
        (inputs + segment, "the inputs of all blocks, all of one, and work")
    } else {
        (
            stem.kept + blocks.iter().map(kept_of).sum::<u64>(),
            "all that the backward pass needs",
        )
    };
    let working = network
        .convolutions()
        .map(|layer| working(layer, images, setup))
        .max()
        .unwrap_or(0);
    let bytes = SINGLE * images * kept + working;
    need("activations", bytes, format!("of {images} images: {note}"))
}

struct Stem {
    /// float32 numbers of an image.
    kept: u64,
    output: u64,
}

fn stem(network: &Network, half: bool) -> Stem {
    let input = network.input;
    let image = (input.channels * input.height * input.width) as u64;
    // The images come in another layout than locally connected layers take.
    let kept = 2 * image + 2 * output(&network.stem) + cast(&network.stem.convolution, half);
    match &network.max_pool {
        // Where every maximum was found is an int64.
        Some(pool) => {
            let channels = network.stem.convolution.out_channels;
            let pooled = (channels * pool.output.height * pool.output.width) as u64;
            Stem {
                kept: kept + 3 * pooled,
                output: pooled,
            }
        }
        None => Stem {
            kept,
            output: output(&network.stem),
        },
    }
}

fn kept(block: &Block, half: bool) -> u64 {
    let inner = 2 * output(&block.first) + 2 * output(&block.second);
    let downsample = block.downsample.as_ref().map_or(0, output);
    inner
        + downsample
        + block
            .units()
            .map(|unit| cast(&unit.convolution, half))
            .sum::<u64>()
}

/// A convolution in lower precision keeps its rounded input and weights.
fn cast(layer: &Convolution, half: bool) -> u64 {
    if layer.locally_connected || !half {
        return 0;
    }
    (input(layer) + layer.weight_count() as u64).div_ceil(2)
}

fn output(unit: &ConvolutionUnit) -> u64 {
    let layer = &unit.convolution;
    (layer.out_channels * layer.positions()) as u64
}

fn input(layer: &Convolution) -> u64 {
    (layer.in_channels * layer.input.height * layer.input.width) as u64
}

fn working(layer: &Convolution, images: u64, setup: &Setup) -> u64 {
    let largest = input(layer).max((layer.out_channels * layer.positions()) as u64);
    let activations = WORKING_COPIES * SINGLE * images * largest;
    if !(setup.cuda && layer.locally_connected) {
        return activations;
    }
    // The unfolded input or its gradient, and weights that are rounded before they are multiplied.
    let size = if setup.precision == Precision::Fp32 {
        SINGLE
    } else {
        2
    };
    let unfolded = size * images * (layer.positions() * layer.fan_in()) as u64;
    let rounded = if setup.precision == Precision::Fp32 {
        0
    } else {
        size * layer.weight_count() as u64
    };
    activations + unfolded + rounded
}
