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
    /// What tells it from the others of its stage: the preset's name, the learning rate and the seed.
    pub fn identity(&self) -> (&'static str, f64, u64) {
        let Run {
            optimizer, training, ..
        } = &self.run;
        (self.preset.name, optimizer.learning_rate, training.seed)
    }

    /// The run's folder in the sweep's.
    pub fn folder(&self, sweep: &Path) -> PathBuf {
        let stage = match self.stage {
            Stage::Choice => "choice",
            Stage::Final => "final",
        };
        let (name, rate, seed) = self.identity();
        sweep
            .join(stage)
            .join(name)
            .join(format!("learning-rate-{rate:e}"))
            .join(format!("seed-{seed}"))
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, rate, seed) = self.identity();
        let why = match self.stage {
            Stage::Choice => ", to choose the learning rate",
            Stage::Final => "",
        };
        write!(formatter, "{name}, learning rate {rate:e}, seed {seed}{why}")
    }
}
