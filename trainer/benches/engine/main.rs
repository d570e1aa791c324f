//! The training engine beside the authors' formulation: one layer forward and backward, the optimiser, and whole training
//! steps. Prints a JSON object a line.

#[path = "../authors/mod.rs"]
mod authors;
mod contest;
mod layer;
mod optimizer;
mod training;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use trainer::device::DeviceChoice;
use trainer::precision::Precision;
use trainer::training::MomentType;

use contest::{Contest, Side};

/// The baselines are float32 always.
const PRECISIONS: [(Precision, &str); 2] = [(Precision::Fp32, "fp32"), (Precision::Bf16, "bf16")];
const MOMENTS: [(MomentType, &str); 2] = [(MomentType::Fp32, ""), (MomentType::Bf16, ".bf16_moments")];

/// Measures the training engine beside the authors' formulation in tch.
#[derive(clap::Parser)]
struct Arguments {
    /// Threads of both; without it, as many as there are cores.
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
    /// How often to measure; the best time counts.
    #[arg(long, default_value = "5", value_name = "N")]
    repetitions: usize,
    /// Run only ours or the baseline, and measure nothing: for looking at the process from outside.
    #[arg(long, value_name = "SIDE")]
    side: Option<Side>,
    /// The metrics are whole names.
    #[arg(long)]
    exactly: bool,
    /// Only metrics whose name contains one of these.
    metrics: Vec<String>,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, metric: &str) -> bool {
        let matches = |part: &String| {
            if self.exactly {
                metric == part
            } else {
                metric.contains(part.as_str())
            }
        };
        self.metrics.is_empty() || self.metrics.iter().any(matches)
    }

    fn measure(&self, contest: Contest) -> Result<()> {
        tch::manual_seed(1);
        if let Some(side) = self.side {
            return contest.run(side);
        }
        let line = serde_json::to_string(&contest.time()?).context("can't write the metric")?;
        #[expect(clippy::print_stdout, reason = "the program's result")]
        {
            println!("{line}");
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(threads) = arguments.threads {
        tch::set_num_threads(threads);
    }
    let device = arguments.device.resolve()?;
    let measured = (arguments.repetitions, device);
    for (name, channels, size) in [("c64_p56", 64, 56), ("c512_p7", 512, 7)] {
        for batch in [8, 32, 128] {
            for (precision, suffix) in PRECISIONS {
                let metric = format!("lc_layer.{name}.b{batch}.{suffix}");
                if arguments.wants(&metric) {
                    let shape = (channels, size, batch);
                    arguments.measure(layer::layer(metric, shape, precision, measured)?)?;
                }
            }
        }
    }
    for (moments, suffix) in MOMENTS {
        let metric = format!("adamw_step{suffix}");
        if arguments.wants(&metric) {
            arguments.measure(optimizer::adamw_step(metric, moments, measured))?;
        }
    }
    for (precision, suffix) in PRECISIONS {
        for (moments, of_moments) in MOMENTS {
            let metric = format!("lc_layer_step.c64_p56.b32.{suffix}{of_moments}");
            if arguments.wants(&metric) {
                let contest = optimizer::layer_step(metric, 32, moments, precision, measured)?;
                arguments.measure(contest)?;
            }
        }
    }
    for (precision, suffix) in PRECISIONS {
        let metric = format!("train_step.resnet18_w16.b32.{suffix}");
        if arguments.wants(&metric) {
            // A run is ten steps.
            let measured = (arguments.repetitions.div_ceil(2), device);
            arguments.measure(training::training_steps(metric, precision, measured)?)?;
        }
    }
    Ok(())
}
