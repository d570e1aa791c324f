//! What one training step computes, and what it moves through memory for its weights.

use std::num::Saturating;

use model::{Convolution, Network};
use serde::Serialize;

use super::{Count, SINGLE, Setup, count, layers};

/// Of one training step; what the sleep phase adds is spread over the steps from one to the next.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Additions and multiplications of all products.
    pub operations: u64,
    /// Bytes read and written for weights in forward and backward passes.
    pub passes: u64,
    /// Bytes read and written to update weights and moments, with gradients where these are in memory.
    pub update: u64,
    /// Bytes read and written by the instant sleep phase.
    pub sleep: u64,
}

impl Step {
    pub(super) fn new(network: &Network, setup: &Setup) -> Self {
        let parts = count(setup.batch_size.div_ceil(setup.at_a_time()));
        let (one, two) = (Saturating(1), Saturating(2));
        let forward = if setup.recompute { two } else { one };
        // Nobody asks for the gradient of the images.
        let products = (forward + two) * network.convolutions().map(macs).sum::<Count>()
            - macs(&network.stem.convolution);
        let local: Count = layers(network).map(|layer| count(layer.weight_count())).sum();
        let moments = count(setup.optimizer.moment_names().len()) * count(setup.optimizer.moments.size());
        // Weights are read in each pass; where gradients are in memory, every part but the first reads and all write them.
        let gradients = if setup.keeps_gradients() {
            two * parts
        } else {
            Saturating(0)
        };
        let passes = SINGLE * local * ((forward + one) * parts + gradients);
        let update = local * two * (SINGLE + moments);
        let sleep = setup.sleep.map_or(Saturating(0), |(_, every)| {
            two * SINGLE * local / count(every.max(1))
        });
        Self {
            operations: (two * products * count(setup.batch_size)).0,
            passes: passes.0,
            update: update.0,
            sleep: sleep.0,
        }
    }
}

/// Multiply-accumulates for one image. Those of a convolution of a huge image needn't fit.
fn macs(layer: &Convolution) -> Count {
    count(layer.positions()) * count(layer.fan_in()) * count(layer.out_channels)
}
