//! `[sleep]` of a run: when neurons share their weights, and how.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::non_negative;
use crate::training::{AntiHebbian, SleepPhase};

/// When neurons share their weights, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SleepSettings {
    /// After the optimiser's step on iterations 0, N, 2N, … of every epoch; `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<usize>,
    /// How weights are shared.
    pub form: SleepForm,
    /// Iterations of an anti-Hebbian phase; `None`: the authors'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<usize>,
    /// Noise inputs of an iteration; `None`: the authors'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Of an anti-Hebbian phase; `None`: the authors'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// How strongly weights are held at their values before the phase; `None`: the authors'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
}

/// How weights are shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SleepForm {
    /// Every weight becomes the mean over the neurons that share it.
    #[default]
    Instant,
    /// Plasticity on noise that these neurons see together makes their weights alike.
    AntiHebbian,
}

impl SleepSettings {
    /// What a sleep phase does.
    pub fn phase(&self) -> SleepPhase {
        match self.form {
            SleepForm::Instant => SleepPhase::Instant,
            SleepForm::AntiHebbian => {
                let defaults = AntiHebbian::default();
                SleepPhase::AntiHebbian(AntiHebbian {
                    iterations: self.iterations.unwrap_or(defaults.iterations),
                    batch_size: self.batch_size.unwrap_or(defaults.batch_size),
                    learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
                    gamma: self.gamma.unwrap_or(defaults.gamma),
                })
            }
        }
    }

    /// The same with every number spelled out.
    pub(super) fn spelled_out(&self) -> Self {
        match self.phase() {
            SleepPhase::Instant => self.clone(),
            SleepPhase::AntiHebbian(phase) => Self {
                iterations: Some(phase.iterations),
                batch_size: Some(phase.batch_size),
                learning_rate: Some(phase.learning_rate),
                gamma: Some(phase.gamma),
                ..self.clone()
            },
        }
    }

    pub(super) fn contradictions(&self, found: &mut Vec<String>) {
        let counts = [
            ("sleep.every", self.every),
            ("sleep.iterations", self.iterations),
            ("sleep.batch_size", self.batch_size),
        ];
        for (key, count) in counts {
            if count == Some(0) {
                found.push(format!("`{key}` must be at least 1"));
            }
        }
        non_negative(
            found,
            &[
                ("sleep.learning_rate", self.learning_rate.unwrap_or(0.0)),
                ("sleep.gamma", self.gamma.unwrap_or(0.0)),
            ],
        );
        if self.form == SleepForm::AntiHebbian {
            if self.every.is_none() {
                found.push("`sleep.form` (--sleep) needs `sleep.every` (--sleep-every): how often".into());
            }
            return;
        }
        let given = [
            ("--sleep-iterations", self.iterations.is_some()),
            ("--sleep-batch", self.batch_size.is_some()),
            ("--sleep-learning-rate", self.learning_rate.is_some()),
            ("--sleep-gamma", self.gamma.is_some()),
        ];
        for (option, _) in given.into_iter().filter(|&(_, given)| given) {
            found.push(format!(
                "{option} needs --sleep anti-hebbian (`sleep.form = \"anti-hebbian\"`): instant sharing has no such option"
            ));
        }
    }
}
