//! What a training run will need, before anything is allocated: memory, and what a step moves and computes.

mod activations;
mod available;
mod fit;
mod sleep;
mod step;
mod table;

pub use available::available_memory;
pub use fit::TooLarge;

use std::num::Saturating;

use model::{Convolution, InputShape, Network};
use serde::Serialize;

use crate::data::AHEAD;
use crate::precision::Precision;
use crate::training::{OptimizerOptions, SleepPhase};

/// libtorch's code and what it sets up when it computes: measured with networks of next to no weights.
const RUNTIME_CPU: Count = Saturating(180 << 20);
/// A CUDA context with the kernels of cuBLAS and cuDNN; an allowance, as it differs between GPUs.
const RUNTIME_CUDA: Count = Saturating(1 << 30);
/// float32.
const SINGLE: Count = Saturating(4);

/// Numbers or bytes. Options may be as large as they like: what they come to is too much then, instead of wrapping to little.
type Count = Saturating<u64>;

/// What decides how much a run needs, beside its network.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Images a step.
    pub batch_size: usize,
    /// Images that are computed at a time at most; `None`: all of a step.
    pub micro_batch: Option<usize>,
    /// With its moments.
    pub optimizer: OptimizerOptions,
    /// Of products.
    pub precision: Precision,
    /// Activations are computed again in the backward pass.
    pub recompute: bool,
    /// The sleep phase, with its distance in steps.
    pub sleep: Option<(SleepPhase, usize)>,
    /// On a GPU, layers are libtorch's operations, which need memory for what they unfold.
    pub cuda: bool,
}

/// What a run needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Held from the first step to the last. Activations are: what a step frees stays with the process.
    pub held: Vec<Need>,
    /// Needed now and then, one at a time.
    pub between_steps: Vec<Need>,
    /// Bytes: all that is held, and the largest of the others.
    pub peak: u64,
    /// Of one step.
    pub step: step::Step,
}

/// Memory for one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    /// What for.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
    /// How it comes about.
    pub note: String,
}

impl Setup {
    /// Images that are computed at a time.
    fn at_a_time(&self) -> usize {
        let parts = self
            .batch_size
            .div_ceil(self.micro_batch.unwrap_or(self.batch_size).max(1));
        // A part has two images at least.
        self.batch_size.div_ceil(parts.min(self.batch_size / 2).max(1))
    }

    /// Whether the gradients of all layers are in memory together.
    fn keeps_gradients(&self) -> bool {
        self.precision == Precision::Fp16 || self.at_a_time() < self.batch_size
    }
}

impl Plan {
    /// The plan for a network.
    pub fn new(network: &Network, setup: &Setup) -> Self {
        let parameters = count(network.parameter_count());
        let local: Count = layers(network).map(|layer| count(layer.weight_count())).sum();
        let largest = layers(network)
            .map(|layer| count(layer.weight_count()))
            .max()
            .unwrap_or_default();
        let held = vec![
            need(
                "weights",
                SINGLE * parameters,
                format!("{parameters} of float32, {local} of them locally connected"),
            ),
            moments(parameters, setup),
            gradients(parameters, local, largest, setup),
            activations::step(network, setup),
            images(network, setup),
            need(
                "libtorch",
                if setup.cuda { RUNTIME_CUDA } else { RUNTIME_CPU },
                "code, threads and caches, about".into(),
            ),
        ];
        let mut between_steps: Vec<Need> = sleep::phase(network, setup).into_iter().collect();
        if !setup.cuda {
            let note = "the largest tensor on its way to a file".to_owned();
            between_steps.push(need("checkpoint", SINGLE * largest, note));
        }
        let bytes = |need: &Need| Saturating(need.bytes);
        let peak =
            held.iter().map(bytes).sum::<Count>() + between_steps.iter().map(bytes).max().unwrap_or_default();
        Self {
            held,
            between_steps,
            peak: peak.0,
            step: step::Step::new(network, setup),
        }
    }
}

/// The batch in use and those that are loaded ahead of it, which are in the computer's memory, not in a GPU's.
fn images(network: &Network, setup: &Setup) -> Need {
    let InputShape {
        channels,
        height,
        width,
    } = network.input;
    let batches = if setup.cuda { 1 } else { 1 + AHEAD };
    let values = count(batches) * count(setup.batch_size) * count(channels * height * width);
    let note = if setup.cuda {
        "the batch in use".to_owned()
    } else {
        format!("the batch in use and {AHEAD} that are loaded ahead")
    };
    need("images", SINGLE * values, note)
}

fn need(name: &'static str, bytes: Count, note: String) -> Need {
    let bytes = bytes.0;
    Need { name, bytes, note }
}

fn count(number: usize) -> Count {
    Saturating(number as u64)
}

/// The locally connected ones.
fn layers(network: &Network) -> impl Iterator<Item = &Convolution> {
    network.convolutions().filter(|layer| layer.locally_connected)
}

fn moments(parameters: Count, setup: &Setup) -> Need {
    let (names, size) = (
        setup.optimizer.moment_names().len(),
        setup.optimizer.moments.size(),
    );
    let note = match names {
        0 => "none".to_owned(),
        _ => format!("{names} a weight, of {size} bytes"),
    };
    need("moments", count(names) * count(size) * parameters, note)
}

fn gradients(parameters: Count, local: Count, largest: Count, setup: &Setup) -> Need {
    let others = parameters - local;
    if setup.keeps_gradients() {
        let why = if setup.precision == Precision::Fp16 {
            "all: a step that overflows under float16 must not be made"
        } else {
            "all: those of a batch's parts are added up"
        };
        return need("gradients", SINGLE * parameters, why.into());
    }
    if setup.cuda {
        let note = "of one layer at a time, and of what is not locally connected".to_owned();
        return need("gradients", SINGLE * (largest + others), note);
    }
    let note = "of what is not locally connected; layers are updated as theirs are computed".to_owned();
    need("gradients", SINGLE * others, note)
}
