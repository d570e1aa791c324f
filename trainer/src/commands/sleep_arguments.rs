//! Options of the sleep phase.

use super::network_arguments::positive;
use super::override_with;
use super::train::non_negative;
use crate::run::{SleepForm, SleepSettings};

/// When neurons share their weights, and how.
#[derive(Debug, clap::Args)]
pub(super) struct SleepArguments {
    /// Share weights after the optimiser's step on iterations 0, N, 2N, … of every epoch; without it, never.
    #[arg(long, value_name = "N", value_parser = positive)]
    sleep_every: Option<usize>,
    /// How weights are shared [default: instant].
    #[arg(long, value_enum, value_name = "NAME")]
    sleep: Option<SleepForm>,
    /// Iterations of an anti-Hebbian sleep phase [default: 100].
    #[arg(long, value_name = "N", value_parser = positive)]
    sleep_iterations: Option<usize>,
    /// Noise inputs of an iteration [default: 128].
    #[arg(long, value_name = "N", value_parser = positive)]
    sleep_batch: Option<usize>,
    /// Learning rate of an anti-Hebbian sleep phase [default: 0.1].
    #[arg(long, value_name = "X", value_parser = non_negative)]
    sleep_learning_rate: Option<f64>,
    /// How strongly weights are held at their values before the phase [default: 1e-5].
    #[arg(long, value_name = "X", value_parser = non_negative)]
    sleep_gamma: Option<f64>,
}

impl SleepArguments {
    /// Lays what is given over settings. Instant sharing has none of the numbers of the other form.
    pub(super) fn apply(&self, settings: &mut SleepSettings) {
        if self.sleep == Some(SleepForm::Instant) {
            *settings = SleepSettings {
                every: settings.every,
                ..SleepSettings::default()
            };
        }
        override_with(&mut settings.form, self.sleep.as_ref());
        settings.every = self.sleep_every.or(settings.every);
        settings.iterations = self.sleep_iterations.or(settings.iterations);
        settings.batch_size = self.sleep_batch.or(settings.batch_size);
        settings.learning_rate = self.sleep_learning_rate.or(settings.learning_rate);
        settings.gamma = self.sleep_gamma.or(settings.gamma);
    }
}
