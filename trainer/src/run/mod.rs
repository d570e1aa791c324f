//! A training run in full: every setting that decides its result, as [`Run`], as a TOML [`mod@file`] and as [`execution`].
//!
//! Settings are laid over each other: defaults, then a [preset](crate::presets), then a file, then flags.

mod data;
pub mod execution;
pub mod file;
mod keys;
mod network;
mod sleep;
mod training;

pub use data::DataSettings;
pub use network::{ConnectivityChoice, Family, InitialisationChoice, NetworkSettings};
pub use sleep::{SleepForm, SleepSettings};
pub use training::{ComputeSettings, OptimizerSettings, TrainingSettings};

use serde::{Deserialize, Serialize};
use tch::Device;
use thiserror::Error;

use crate::plan::Setup;
use crate::training::TrainingOptions;

/// Everything that decides what a training run makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// The preset that the run began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The images.
    pub data: DataSettings,
    /// The network.
    pub network: NetworkSettings,
    /// When neurons share their weights.
    pub sleep: SleepSettings,
    /// How long and how exactly.
    pub training: TrainingSettings,
    /// How gradients become steps.
    pub optimizer: OptimizerSettings,
    /// Where.
    pub compute: ComputeSettings,
}

/// Settings that contradict each other or can't be meant.
#[derive(Debug, Error)]
#[error("{}", .0.join("; "))]
pub struct Contradictions(pub Vec<String>);

impl Run {
    /// Whether the settings fit each other; all that is wrong at once.
    ///
    /// # Errors
    /// [`Contradictions`], which name settings as the file and as flags do.
    pub fn check(&self) -> Result<(), Contradictions> {
        let mut found = Vec::new();
        self.data.contradictions(&mut found);
        self.network.contradictions(&mut found);
        self.sleep.contradictions(&mut found);
        self.training.contradictions(&mut found);
        self.optimizer.contradictions(&mut found);
        self.compute.contradictions(&mut found);
        if found.is_empty() {
            Ok(())
        } else {
            Err(Contradictions(found))
        }
    }

    /// What the training loop takes.
    pub fn options(&self, device: Device) -> TrainingOptions {
        TrainingOptions {
            epochs: self.training.epochs,
            batch_size: self.training.batch_size,
            micro_batch: self.training.micro_batch,
            optimizer: self.optimizer.options(),
            schedule: self.training.schedule,
            sleep_every: self.sleep.every,
            sleep: self.sleep.phase(),
            seed: self.training.seed,
            precision: self.training.precision.resolve(device),
            augmentation: self.data.augmentation,
        }
    }

    /// What decides the memory that it needs.
    pub fn setup(&self, device: Device) -> Setup {
        Setup {
            batch_size: self.training.batch_size,
            micro_batch: self.training.micro_batch,
            optimizer: self.optimizer.options(),
            precision: self.training.precision.resolve(device),
            recompute: self.training.recompute_activations,
            sleep: self.sleep.every.map(|every| (self.sleep.phase(), every)),
            cuda: device.is_cuda(),
        }
    }
}

/// Names the settings that aren't finite numbers of at least 0.
fn non_negative(found: &mut Vec<String>, settings: &[(&str, f64)]) {
    let wrong = settings
        .iter()
        .filter(|(_, value)| !(value.is_finite() && *value >= 0.0));
    found.extend(wrong.map(|(key, _)| format!("`{key}` must be a number of at least 0")));
}
