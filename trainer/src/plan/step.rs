//! What one training step computes, and what it moves through memory for its weights.

use model::{Convolution, Network};
use serde::Serialize;

use super::{SINGLE, Setup, layers};

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
        let parts = (setup.batch_size as u64).div_ceil(setup.at_a_time() as u64);
        let macs: u64 = network.convolutions().map(|layer| layer.macs() as u64).sum();
        let first = network.stem.convolution.macs() as u64;
        let forward = if setup.recompute { 2 } else { 1 };
        // Nobody asks for the gradient of the images.
        let products = (forward + 2) * macs - first;
        let local: u64 = layers(network).map(|layer| layer.weight_count() as u64).sum();
        let (moments, size) = (
            setup.optimizer.moment_names().len() as u64,
            setup.optimizer.moments.size() as u64,
        );
        // Weights are read in each pass; where gradients are in memory, every part but the first reads and all write them.
        let gradients = if setup.keeps_gradients() { 2 * parts } else { 0 };
        let passes = SINGLE * local * ((forward + 1) * parts + gradients);
        let update = local * (2 * SINGLE + 2 * moments * size);
        let sleep = setup.sleep.map_or(0, |(_, every)| {
            let shared = |layer: &Convolution| 2 * SINGLE * layer.weight_count() as u64;
            layers(network).map(shared).sum::<u64>() / every.max(1) as u64
        });
        Self {
            operations: 2 * products * setup.batch_size as u64,
            passes,
            update,
            sleep,
        }
    }
}
