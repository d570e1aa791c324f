//! Whether a plan fits in memory, and what would make it fit.

use std::fmt;

use model::Network;
use thiserror::Error;

use super::table::size;
use super::{Plan, Setup};
use crate::training::MomentType;

/// A run that needs more memory than there is.
#[derive(Debug, Error)]
#[error(
    "training needs {}, but {} {}.{}\n{plan}",
    size(plan.peak),
    size(*available),
    if *limited { "are allowed (--memory-limit)" } else { "are free (--memory-limit SIZE overrules that)" },
    Advice(remedy)
)]
pub struct TooLarge {
    /// What it needs.
    pub plan: Box<Plan>,
    /// Bytes.
    pub available: u64,
    /// The user said how much may be used.
    pub limited: bool,
    /// Options that would make it fit, with the peak that is left.
    pub remedy: Option<(String, u64)>,
}

impl Plan {
    /// The plan, where it needs no more than `available` bytes.
    ///
    /// # Errors
    /// [`TooLarge`] with what would fit.
    pub fn fitting(
        network: &Network,
        setup: &Setup,
        available: u64,
        limited: bool,
    ) -> Result<Self, TooLarge> {
        let plan = Self::new(network, setup);
        if plan.peak <= available {
            return Ok(plan);
        }
        Err(TooLarge {
            plan: Box::new(plan),
            available,
            limited,
            remedy: remedy(network, setup, available),
        })
    }
}

/// The smallest change that fits: none of these changes what is computed but the last.
fn remedy(network: &Network, setup: &Setup, available: u64) -> Option<(String, u64)> {
    let recompute = Setup {
        recompute: true,
        ..*setup
    };
    let reduced = |setup: Setup| Setup {
        optimizer: crate::training::OptimizerOptions {
            moments: MomentType::Bf16,
            ..setup.optimizer
        },
        ..setup
    };
    let smaller = (0..)
        .map(|halvings| setup.batch_size >> halvings)
        .take_while(|&batch_size| batch_size > 1)
        .map(|batch_size| {
            let options = format!("--batch-size {batch_size} --moments bf16 --recompute-activations");
            let smaller = Setup {
                batch_size,
                micro_batch: None,
                ..reduced(recompute)
            };
            (options, smaller)
        });
    let all = [
        ("--recompute-activations".to_owned(), recompute),
        ("--moments bf16".to_owned(), reduced(*setup)),
        (
            "--moments bf16 --recompute-activations".to_owned(),
            reduced(recompute),
        ),
    ];
    all.into_iter().chain(smaller).find_map(|(options, setup)| {
        let peak = Plan::new(network, &setup).peak;
        (peak <= available).then_some((options, peak))
    })
}

struct Advice<'a>(&'a Option<(String, u64)>);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((options, peak)) => write!(formatter, " {options} would need {}.", size(*peak)),
            None => write!(formatter, " A narrower network or another device is needed."),
        }
    }
}
