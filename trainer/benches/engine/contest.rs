//! Two ways to do the same, timed in one process or weighed in processes of their own.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tch::{Cuda, Device};

/// Does it once.
pub type Run = Box<dyn FnMut() -> Result<()>>;

/// Takes memory and makes ready.
pub type Preparation = Box<dyn FnOnce() -> Result<Run>>;

/// Ours against a baseline.
pub struct Contest {
    /// As in the project's lists of figures: `adamw_step`.
    pub metric: String,
    /// What the baseline is.
    pub baseline: &'static str,
    /// Ours.
    pub ours: Preparation,
    /// The baseline.
    pub theirs: Preparation,
    /// How many steps one run makes.
    pub steps: usize,
    /// How often to measure; the best time counts.
    pub repetitions: usize,
    /// Where both compute.
    pub device: Device,
}

/// One of the two.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Side {
    /// The trainer.
    Ours,
    /// The baseline.
    Theirs,
}

/// A figure beside that of a baseline, measured in the same run.
#[derive(Debug, Serialize)]
pub struct Metric {
    /// The contest's.
    pub metric: String,
    /// Ours.
    pub value: f64,
    /// Of both values.
    pub unit: &'static str,
    /// What the baseline is.
    pub baseline: &'static str,
    /// The baseline's.
    pub baseline_value: f64,
    /// Above 1: better than the baseline.
    pub ratio: f64,
}

impl Contest {
    /// Runs ours and the baseline in turns, so that whatever else the machine does disturbs both, and takes the best of
    /// each.
    pub fn time(self) -> Result<Metric> {
        let (mut ours, mut theirs) = ((self.ours)()?, (self.theirs)()?);
        let (mut value, mut baseline_value) = (f64::INFINITY, f64::INFINITY);
        // The first runs take memory and choose kernels.
        ours()?;
        theirs()?;
        for _ in 0..self.repetitions {
            value = value.min(seconds(&mut ours, self.device)?);
            baseline_value = baseline_value.min(seconds(&mut theirs, self.device)?);
        }
        Ok(Metric {
            metric: self.metric,
            value: value / self.steps as f64,
            unit: "s",
            baseline: self.baseline,
            baseline_value: baseline_value / self.steps as f64,
            ratio: baseline_value / value,
        })
    }

    /// Runs one of them twice, with nothing of the other in memory. The process's peak is then its own.
    pub fn run(self, side: Side) -> Result<()> {
        let mut run = match side {
            Side::Ours => (self.ours)()?,
            Side::Theirs => (self.theirs)()?,
        };
        run()?;
        run()
    }
}

fn seconds(run: &mut Run, device: Device) -> Result<f64> {
    // A GPU works on after its calls have returned.
    let wait = || {
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
    };
    wait();
    let start = Instant::now();
    run().context("a run failed")?;
    wait();
    Ok(start.elapsed().as_secs_f64())
}
