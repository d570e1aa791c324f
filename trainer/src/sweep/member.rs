//! One run of a sweep.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::presets::Preset;
use crate::run::Run;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To choose a learning rate, on images that are held out of the training set.
    Choice,
    /// To be tested.
    Final,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The network of the paper.
    pub preset: &'static Preset,
    /// What it is for.
    pub stage: Stage,
    /// The whole of it, learning rate and seed too.
    pub run: Run,
}

impl Member {
    /// The run's folder in the sweep's.
    pub fn folder(&self, sweep: &Path) -> PathBuf {
        let stage = match self.stage {
            Stage::Choice => "choice",
            Stage::Final => "final",
        };
        let (rate, seed) = (self.run.optimizer.learning_rate, self.run.training.seed);
        sweep
            .join(stage)
            .join(self.preset.name)
            .join(format!("learning-rate-{rate:e}"))
            .join(format!("seed-{seed}"))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, seed) = (self.run.optimizer.learning_rate, self.run.training.seed);
        let why = match self.stage {
            Stage::Choice => ", to choose the learning rate",
            Stage::Final => "",
        };
        write!(
            formatter,
            "{}, learning rate {rate:e}, seed {seed}{why}",
            self.preset.name
        )
    }
}
