//! Options that decide how a training step is made, and what memory it may take.

use bytesize::ByteSize;
use tch::Device;

use super::network_arguments::positive;
use super::override_with;
use crate::engine::Algorithm;
use crate::plan::available_memory;
use crate::precision::PrecisionChoice;
use crate::run::Run;
use crate::run::execution::Memory;
use crate::training::MomentType;

/// How a training step is made.
#[derive(Debug, clap::Args)]
pub(super) struct StepArguments {
    /// Images a step [default: 128].
    #[arg(long, value_name = "N", value_parser = positive)]
    batch_size: Option<usize>,
    /// Images that are computed at a time, two at least; the gradients of a batch's parts are added up before the step. BatchNorm's
    /// statistics are then those of a part [default: --batch-size].
    #[arg(long, value_name = "N", value_parser = positive)]
    micro_batch: Option<usize>,
    /// How gradients become steps; the paper's is AdamW [default: adamw].
    #[arg(long, value_enum, value_name = "NAME")]
    optimizer: Option<Algorithm>,
    /// Decay of the sum of past gradients, with --optimizer sgd; from 0 to below 1 [default: 0].
    #[arg(long, value_name = "X", value_parser = momentum)]
    momentum: Option<f64>,
    /// Type of what the optimiser remembers of every weight; bf16 takes half the memory [default: fp32].
    #[arg(long, value_enum, value_name = "NAME")]
    moments: Option<MomentType>,
    /// Compute activations a second time in the backward pass instead of keeping them: less memory, a third more work, the
    /// same result.
    #[arg(long)]
    recompute_activations: bool,
    /// Type of the factors in the training steps' matrix products and convolutions; weights, sums, BatchNorm and losses are
    /// float32 always [default: auto].
    #[arg(long, value_enum, value_name = "NAME")]
    precision: Option<PrecisionChoice>,
    /// Memory that training may take, such as 20GiB [default: what is free].
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
}

impl StepArguments {
    /// Lays what is given over a run.
    pub(super) fn apply(&self, run: &mut Run) {
        let training = &mut run.training;
        override_with(&mut training.batch_size, self.batch_size.as_ref());
        override_with(&mut training.precision, self.precision.as_ref());
        training.micro_batch = self.micro_batch.or(training.micro_batch);
        training.recompute_activations |= self.recompute_activations;
        let optimizer = &mut run.optimizer;
        override_with(&mut optimizer.algorithm, self.optimizer.as_ref());
        override_with(&mut optimizer.momentum, self.momentum.as_ref());
        override_with(&mut optimizer.moments, self.moments.as_ref());
    }

    /// Whether the user says how much memory there is.
    pub(super) fn has_memory_limit(&self) -> bool {
        self.memory_limit.is_some()
    }

    /// What memory training may take; `None` where nobody tells.
    pub(super) fn memory(&self, device: Device) -> Option<Memory> {
        let limit = self.memory_limit.map(|limit| limit.as_u64());
        let available = limit.or_else(|| available_memory(device))?;
        Some(Memory {
            available,
            limited: self.has_memory_limit(),
        })
    }
}

fn momentum(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to below 1".into()),
    }
}
