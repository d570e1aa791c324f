//! What a training run will need, before anything is allocated: memory, and what a step moves and computes.

mod activations;
mod available;
mod fit;
mod step;
mod table;

pub use available::available_memory;
pub use fit::TooLarge;

use model::{Convolution, InputShape, Network};
use serde::Serialize;

use crate::data::AHEAD;
use crate::precision::Precision;
use crate::training::{OptimizerOptions, SleepPhase};

/// libtorch's code and what it sets up when it computes: measured with networks of next to no weights.
const RUNTIME_CPU: u64 = 180 << 20;
/// A CUDA context with the kernels of cuBLAS and cuDNN; an allowance, as it differs between GPUs.
const RUNTIME_CUDA: u64 = 1 << 30;
/// float32.
const SINGLE: u64 = 4;

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
        let parameters = network.parameter_count() as u64;
        let local: u64 = layers(network).map(|layer| layer.weight_count() as u64).sum();
        let largest = layers(network)
            .map(|layer| layer.weight_count() as u64)
            .max()
            .unwrap_or(0);
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
        let mut between_steps: Vec<Need> = sleep(network, setup).into_iter().collect();
        if !setup.cuda {
            let note = "the largest tensor on its way to a file".to_owned();
            between_steps.push(need("checkpoint", SINGLE * largest, note));
        }
        let peak = held.iter().map(|need| need.bytes).sum::<u64>()
            + between_steps.iter().map(|need| need.bytes).max().unwrap_or(0);
        Self {
            held,
            between_steps,
            peak,
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
    let values = batches * setup.batch_size * channels * height * width;
    let note = if setup.cuda {
        "the batch in use".to_owned()
    } else {
        format!("the batch in use and {AHEAD} that are loaded ahead")
    };
    need("images", SINGLE * values as u64, note)
}

fn need(name: &'static str, bytes: u64, note: String) -> Need {
    Need { name, bytes, note }
}

/// The locally connected ones.
fn layers(network: &Network) -> impl Iterator<Item = &Convolution> {
    network.convolutions().filter(|layer| layer.locally_connected)
}

fn moments(parameters: u64, setup: &Setup) -> Need {
    let (count, size) = (
        setup.optimizer.moment_names().len() as u64,
        setup.optimizer.moments.size() as u64,
    );
    let note = match count {
        0 => "none".to_owned(),
        _ => format!("{count} a weight, of {size} bytes"),
    };
    need("moments", count * size * parameters, note)
}

fn gradients(parameters: u64, local: u64, largest: u64, setup: &Setup) -> Need {
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

/// Two classes of weights of the largest layer and, where it is anti-Hebbian, its two K x K matrices.
fn sleep(network: &Network, setup: &Setup) -> Option<Need> {
    let (phase, _) = setup.sleep?;
    let of_layer = |layer: &Convolution| {
        let classes = (layer.kernel_size * layer.kernel_size) as u64;
        let fan_in = layer.fan_in() as u64;
        match phase {
            SleepPhase::Instant => 2 * fan_in * layer.out_channels as u64,
            SleepPhase::AntiHebbian(_) => {
                2 * (layer.weight_count() as u64).div_ceil(classes) + 3 * fan_in * fan_in
            }
        }
    };
    let most = layers(network).map(of_layer).max().unwrap_or(0);
    Some(need(
        "sleep phase",
        SINGLE * most,
        "of the layer that needs most".into(),
    ))
}
