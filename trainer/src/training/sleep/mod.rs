//! The sleep phase: neurons with non-overlapping receptive fields come to share their weights.
//!
//! Pogodin, Mehta, Lillicrap & Latham 2021: output positions fall in k² classes by (row mod k, column mod k). Within a
//! class weights become equal at once, or are made alike by anti-Hebbian plasticity on noise.

mod anti_hebbian;
mod class;
mod instant;

pub(crate) use anti_hebbian::largest_class;
pub use anti_hebbian::{AntiHebbian, anti_hebbian_iteration, share_anti_hebbian, share_with_patches, tile};
pub(super) use class::mean_over_positions;
pub use instant::share_instantly;

use model::Convolution;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::TchError;
use thiserror::Error;

use super::Position;
use crate::network::TorchNetwork;

/// How neurons come to share their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SleepPhase {
    /// Every weight becomes the mean over its class.
    #[default]
    Instant,
    /// Anti-Hebbian plasticity on noise.
    AntiHebbian(AntiHebbian),
}

/// A sleep phase that would make weights less alike.
#[derive(Debug, Error, PartialEq)]
#[error(
    "the sleep phase would drive the weights of `{layer}` apart: its neurons have {fan_in} inputs, and for {batch_size} \
     noise inputs an iteration the learning rate must be below {largest:.4}, not {learning_rate}; lower the learning rate \
     or raise the number of noise inputs"
)]
pub struct UnstableSleep {
    /// The layer.
    pub layer: String,
    /// K.
    pub fan_in: usize,
    /// B.
    pub batch_size: usize,
    /// η.
    pub learning_rate: f64,
    /// What η must be below.
    pub largest: f64,
}

impl SleepPhase {
    /// Checks that the phase makes the weights of every layer more alike, before a training run relies on it.
    ///
    /// # Errors
    /// [`UnstableSleep`], for the layer with the most inputs a neuron.
    pub fn check(&self, network: &model::Network) -> Result<(), UnstableSleep> {
        let Self::AntiHebbian(options) = self else {
            return Ok(());
        };
        let diverging = network
            .convolutions()
            .filter(|geometry| geometry.locally_connected && options.diverges(geometry));
        match diverging.max_by_key(|geometry| geometry.fan_in()) {
            None => Ok(()),
            Some(geometry) => Err(UnstableSleep {
                layer: geometry.name.clone(),
                fan_in: geometry.fan_in(),
                batch_size: options.batch_size,
                learning_rate: options.learning_rate,
                largest: options.largest_learning_rate(geometry),
            }),
        }
    }

    /// Shares the weights of every locally connected layer after a step of training. The noise depends on nothing but the
    /// run's seed and the step, so that a resumed run draws what an uninterrupted one would; libtorch's generator is
    /// seeded for it.
    ///
    /// # Errors
    /// libtorch's.
    pub fn run(&self, network: &TorchNetwork, seed: u64, position: Position) -> Result<(), TchError> {
        if let Self::AntiHebbian(_) = self {
            tch::manual_seed(noise_seed(seed, position));
        }
        for geometry in network.network().convolutions() {
            if geometry.locally_connected {
                self.share(network, geometry)?;
            }
        }
        Ok(())
    }

    fn share(&self, network: &TorchNetwork, geometry: &Convolution) -> Result<(), TchError> {
        let weights = network.store().get(&geometry.weight_name());
        match self {
            Self::Instant => share_instantly(weights, geometry.kernel_size),
            Self::AntiHebbian(options) => share_anti_hebbian(weights, geometry, options),
        }
    }
}

/// Seed of libtorch's generator for the sleep phase of one step. The order of the images of epoch e comes from stream e of
/// the same generator; these streams are counted from the other end.
fn noise_seed(seed: u64, position: Position) -> i64 {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(!(position.epoch as u64));
    generator.set_word_pos(2 * position.step as u128);
    i64::from_ne_bytes(generator.next_u64().to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_every_epoch_has_noise_of_its_own() {
        let mut seeds = std::collections::HashSet::new();
        for seed in 0..3 {
            for epoch in 0..5 {
                for step in 0..20 {
                    let position = Position { epoch, step };
                    assert!(seeds.insert(noise_seed(seed, position)), "{seed} {position:?}");
                    assert_eq!(noise_seed(seed, position), noise_seed(seed, position));
                }
            }
        }
    }
}
