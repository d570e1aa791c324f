//! What a training step keeps of its activations, and what it needs beside them.
//!
//! For its backward pass a unit (convolution, BatchNorm) keeps its convolution's output, which BatchNorm needs, and a ReLU
//! its own output, which is the next convolution's input. Everything else is gone before the next unit is computed.

use std::num::Saturating;

use model::network::{Block, ConvolutionUnit};
use model::{Convolution, Network};

use super::{Count, Need, SINGLE, Setup, count, need};
use crate::precision::Precision;

/// Copies of its largest activation that a layer's backward pass holds at a time: the gradients of output, BatchNorm's
/// input and the residual branch, one of them transposed, and the input's gradient.
const WORKING_COPIES: Count = Saturating(5);

const TWO: Count = Saturating(2);

/// Activations that are kept for the backward pass, and the memory of the layer that needs most on the way.
pub(super) fn step(network: &Network, setup: &Setup) -> Need {
    let images = count(setup.at_a_time());
    let half = setup.precision != Precision::Fp32;
    let stem = stem(network, half);
    let blocks: Vec<&Block> = network.stages.iter().flat_map(|stage| &stage.blocks).collect();
    let kept_of = |block: &&Block| kept(block, half);
    let (kept, note) = if setup.recompute {
        // The inputs of all blocks, and what one segment keeps while it is computed again.
        let inputs = blocks.iter().map(|block| output(&block.second)).sum::<Count>() + stem.output;
        let segment = blocks
            .iter()
            .map(kept_of)
            .max()
            .unwrap_or_default()
            .max(stem.kept);
        (inputs + segment, "the inputs of all blocks, all of one, and work")
    } else {
        (
            stem.kept + blocks.iter().map(kept_of).sum::<Count>(),
            "all that the backward pass needs",
        )
    };
    let working = network
        .convolutions()
        .map(|layer| working(layer, images, setup))
        .max()
        .unwrap_or_default();
    let bytes = SINGLE * images * kept + working;
    need("activations", bytes, format!("of {images} images: {note}"))
}

struct Stem {
    /// float32 numbers of an image.
    kept: Count,
    output: Count,
}

fn stem(network: &Network, half: bool) -> Stem {
    let input = network.input;
    let image = count(input.channels * input.height * input.width);
    // The images come in another layout than locally connected layers take.
    let kept = TWO * (image + output(&network.stem)) + cast(&network.stem.convolution, half);
    match &network.max_pool {
        // Where every maximum was found is an int64.
        Some(pool) => {
            let channels = network.stem.convolution.out_channels;
            let pooled = count(channels * pool.output.height * pool.output.width);
            Stem {
                kept: kept + Saturating(3) * pooled,
                output: pooled,
            }
        }
        None => Stem {
            kept,
            output: output(&network.stem),
        },
    }
}

fn kept(block: &Block, half: bool) -> Count {
    let inner = TWO * (output(&block.first) + output(&block.second));
    let downsample = block.downsample.as_ref().map(output).unwrap_or_default();
    inner
        + downsample
        + block
            .units()
            .map(|unit| cast(&unit.convolution, half))
            .sum::<Count>()
}

/// A convolution in lower precision keeps its rounded input and weights.
fn cast(layer: &Convolution, half: bool) -> Count {
    if layer.locally_connected || !half {
        return Saturating(0);
    }
    let rounded = input(layer) + count(layer.weight_count());
    Saturating(rounded.0.div_ceil(2))
}

fn output(unit: &ConvolutionUnit) -> Count {
    let layer = &unit.convolution;
    count(layer.out_channels * layer.positions())
}

fn input(layer: &Convolution) -> Count {
    count(layer.in_channels * layer.input.height * layer.input.width)
}

fn working(layer: &Convolution, images: Count, setup: &Setup) -> Count {
    let largest = input(layer).max(count(layer.out_channels * layer.positions()));
    let activations = WORKING_COPIES * SINGLE * images * largest;
    if !(setup.cuda && layer.locally_connected) {
        return activations;
    }
    // The unfolded input or its gradient, and weights that are rounded before they are multiplied.
    let size = if setup.precision == Precision::Fp32 {
        SINGLE
    } else {
        TWO
    };
    let unfolded = size * images * count(layer.positions() * layer.fan_in());
    let rounded = if setup.precision == Precision::Fp32 {
        Saturating(0)
    } else {
        size * count(layer.weight_count())
    };
    activations + unfolded + rounded
}
