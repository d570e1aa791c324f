//! What a sweep is to train, as a TOML file says it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::Table;

use crate::presets::{self, Preset, UnknownPreset};
use crate::run::file::{self, Problem};
use crate::run::{Contradictions, Run};

/// What to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sweep {
    /// Names of presets.
    pub presets: Vec<String>,
    /// To choose from; none: every preset has its own.
    pub learning_rates: Vec<f64>,
    /// Of the runs that are tested.
    pub seeds: Vec<u64>,
    /// How a learning rate is chosen.
    pub choice: Choice,
    /// Settings laid over those of every preset: a run file's sections.
    pub run: Table,
}

/// How a learning rate is chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Choice {
    /// Epochs of the runs that choose; `None`: as many as of the runs that are tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Their seeds; none: those of the runs that are tested.
    pub seeds: Vec<u64>,
    /// Training images that are held out; `None`: as many as the paper, 10,000, or a sixth of fewer than 60,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
}

/// A sweep that can't be done.
#[derive(Debug, Error)]
pub enum SweepError {
    /// Its file can't be read.
    #[error("{} is not a sweep", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Problem,
    },
    /// It names a preset that isn't there.
    #[error(transparent)]
    Preset(#[from] UnknownPreset),
    /// It names something twice, or nothing.
    #[error("{0}")]
    Empty(String),
    /// It changes what makes presets different networks.
    #[error(
        "preset `{preset}`: {} would be changed, which is what tells the presets apart; choose others with `presets` (--presets)",
        keys.join(", ")
    )]
    OtherPreset {
        /// Whose.
        preset: &'static str,
        /// The settings.
        keys: Vec<String>,
    },
    /// A setting of its runs is none.
    #[error("in `run`: {0}")]
    Settings(Problem),
    /// Its runs contradict themselves.
    #[error("preset `{preset}`: {reason}")]
    Run {
        /// Whose.
        preset: &'static str,
        /// How.
        reason: Contradictions,
    },
}

impl Default for Sweep {
    /// The eleven networks that the paper trains, each with its own learning rate.
    fn default() -> Self {
        let trained = presets::ALL
            .iter()
            .filter(|preset| preset.is_in_table() && preset.is_trained());
        Self {
            presets: trained.map(|preset| preset.name.to_owned()).collect(),
            learning_rates: Vec::new(),
            seeds: vec![1],
            choice: Choice::default(),
            run: Table::new(),
        }
    }
}

impl Sweep {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SweepError::File`].
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let read = || {
            let text = std::fs::read_to_string(path)?;
            toml::from_str(&text).map_err(|error| Problem::Syntax(Box::new(error)))
        };
        read().map_err(|source| SweepError::File {
            path: path.into(),
            source,
        })
    }

    /// Whether there are things to do, each once.
    ///
    /// # Errors
    /// [`SweepError`].
    pub fn check(&self) -> Result<(), SweepError> {
        self.presets()?;
        once("presets", &self.presets)?;
        once("learning rates", &self.learning_rates)?;
        once("seeds", &self.seeds)?;
        once("seeds that choose", &self.choice.seeds)?;
        let wrong = |rate: &&f64| !(rate.is_finite() && **rate > 0.0);
        if let Some(rate) = self.learning_rates.iter().find(wrong) {
            return Err(SweepError::Empty(format!(
                "{rate} is no learning rate: it must be above 0"
            )));
        }
        if self.presets.is_empty() || self.seeds.is_empty() {
            return Err(SweepError::Empty(
                "a sweep needs a preset and a seed at least".into(),
            ));
        }
        if self.choice.hold_out == Some(0) || self.choice.epochs == Some(0) {
            return Err(SweepError::Empty(
                "a learning rate is chosen by one epoch and one image that is held out at least".into(),
            ));
        }
        Ok(())
    }

    /// The presets themselves.
    ///
    /// # Errors
    /// [`SweepError::Preset`].
    pub fn presets(&self) -> Result<Vec<&'static Preset>, SweepError> {
        let found = self.presets.iter().map(|name| Ok(presets::find(name)?));
        found.collect()
    }

    /// The learning rates that a preset is trained with; none for one that stays untrained.
    pub fn learning_rates(&self, preset: &Preset) -> Vec<f64> {
        match preset.learning_rate {
            None => Vec::new(),
            Some(own) if self.learning_rates.is_empty() => vec![own],
            Some(_) => self.learning_rates.clone(),
        }
    }

    /// A preset's run with the sweep's settings laid over it.
    ///
    /// # Errors
    /// [`SweepError::Settings`] where they are none.
    pub fn run(&self, preset: &Preset) -> Result<Run, SweepError> {
        if self.run.contains_key("preset") {
            return Err(SweepError::Settings(Problem::Value(
                "`preset` is for run files; a sweep names its presets in `presets`".into(),
            )));
        }
        file::from_table(self.run.clone(), &preset.run()).map_err(SweepError::Settings)
    }
}

fn once<T: PartialEq + std::fmt::Display>(what: &str, values: &[T]) -> Result<(), SweepError> {
    let mut rest = values.iter().enumerate();
    match rest.find(|(index, value)| values[..*index].contains(value)) {
        Some((_, twice)) => Err(SweepError::Empty(format!("the {what} name {twice} twice"))),
        None => Ok(()),
    }
}
