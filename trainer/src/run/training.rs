//! `[training]`, `[optimizer]` and `[compute]` of a run.

use serde::{Deserialize, Serialize};
use tch::Device;

use super::non_negative;
use crate::device::{DeviceChoice, DeviceError};
use crate::engine::Algorithm;
use crate::precision::PrecisionChoice;
use crate::training::{MomentType, OptimizerOptions, Schedule};

/// How long and how exactly to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingSettings {
    /// Passes over the training images; 0 leaves the network untrained.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Images that are computed at a time; `None`: all of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Decides the initial weights, the order and the augmentation of the images and the noise of the sleep phase.
    pub seed: u64,
    /// Of the factors of products in training steps.
    pub precision: PrecisionChoice,
    /// Compute activations a second time in the backward pass instead of keeping them.
    pub recompute_activations: bool,
    /// Epochs from one checkpoint to the next.
    pub checkpoint_every: usize,
}

/// How gradients become steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSettings {
    /// The paper's is AdamW.
    pub algorithm: Algorithm,
    /// At the beginning.
    pub learning_rate: f64,
    /// Fraction of every parameter.
    pub weight_decay: f64,
    /// Adam's: decay of the first and the second moment.
    pub betas: (f64, f64),
    /// Adam's: added to the root of the second moment.
    pub epsilon: f64,
    /// Stochastic gradient descent's: decay of the sum of past gradients.
    pub momentum: f64,
    /// Type of what the optimiser remembers of every weight.
    pub moments: MomentType,
}

/// Where to compute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeSettings {
    /// auto, cpu, cuda or cuda:N.
    pub device: DeviceChoice,
    /// On the CPU; `None`: as many as there are cores. Sums are made in an order that depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 128,
            micro_batch: None,
            schedule: Schedule::default(),
            seed: 1,
            precision: PrecisionChoice::Auto,
            recompute_activations: false,
            checkpoint_every: 1,
        }
    }
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        let OptimizerOptions {
            algorithm,
            learning_rate,
            weight_decay,
            betas,
            epsilon,
            momentum,
            moments,
        } = OptimizerOptions::default();
        Self {
            algorithm,
            learning_rate,
            weight_decay,
            betas,
            epsilon,
            momentum,
            moments,
        }
    }
}

impl Default for ComputeSettings {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            threads: None,
        }
    }
}

impl TrainingSettings {
    pub(super) fn contradictions(&self, found: &mut Vec<String>) {
        let counts = [
            ("training.batch_size", self.batch_size),
            ("training.micro_batch", self.micro_batch.unwrap_or(1)),
            ("training.checkpoint_every", self.checkpoint_every),
        ];
        for (key, _) in counts.into_iter().filter(|&(_, count)| count == 0) {
            found.push(format!("`{key}` must be at least 1"));
        }
    }
}

impl OptimizerSettings {
    /// What the optimiser takes.
    pub fn options(&self) -> OptimizerOptions {
        let Self {
            algorithm,
            learning_rate,
            weight_decay,
            betas,
            epsilon,
            momentum,
            moments,
        } = *self;
        OptimizerOptions {
            algorithm,
            learning_rate,
            weight_decay,
            betas,
            epsilon,
            momentum,
            moments,
        }
    }

    pub(super) fn contradictions(&self, found: &mut Vec<String>) {
        non_negative(
            found,
            &[
                ("optimizer.learning_rate", self.learning_rate),
                ("optimizer.weight_decay", self.weight_decay),
                ("optimizer.epsilon", self.epsilon),
            ],
        );
        let decays = [
            ("optimizer.betas", self.betas.0),
            ("optimizer.betas", self.betas.1),
            ("optimizer.momentum", self.momentum),
        ];
        for (key, _) in decays
            .into_iter()
            .filter(|(_, decay)| !(0.0..1.0).contains(decay))
        {
            found.push(format!("`{key}` must be from 0 to below 1"));
        }
        if self.momentum != 0.0 && self.algorithm != Algorithm::Sgd {
            found.push(
                "--momentum is for --optimizer sgd (`optimizer.algorithm`); adamw and adam have moments of their own"
                    .into(),
            );
        }
    }
}

impl ComputeSettings {
    /// Sets the number of threads and finds the device.
    ///
    /// # Errors
    /// [`DeviceError`] where a device isn't there.
    pub fn start(&self) -> Result<Device, DeviceError> {
        if let Some(threads) = self.threads.and_then(|threads| i32::try_from(threads).ok()) {
            tch::set_num_threads(threads);
        }
        let device = self.device.resolve()?;
        tracing::info!(?device, threads = tch::get_num_threads(), "computing");
        Ok(device)
    }

    pub(super) fn contradictions(&self, found: &mut Vec<String>) {
        if self
            .threads
            .is_some_and(|threads| threads == 0 || i32::try_from(threads).is_err())
        {
            found.push("`compute.threads` must be at least 1, and no number that no machine has".into());
        }
    }
}
