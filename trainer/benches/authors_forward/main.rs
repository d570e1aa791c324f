//! Times a locally connected ResNet-18 as the authors' implementation computes it, the baseline of exported networks.
//!
//! `cargo bench -p trainer --bench authors_forward -- --width 64 --batch-sizes 1,8,32` prints a JSON object a line:
//! `{"name": "authors_forward.b1", "value": …, "unit": "s"}`. `cargo xtask bench export` runs it.
#![expect(clippy::print_stdout, reason = "prints its results")]

#[allow(dead_code, reason = "nothing is trained here")]
#[path = "../authors/mod.rs"]
mod authors;

use std::time::Instant;

use anyhow::{Result, ensure};
use authors::AuthorsNetwork;
use clap::Parser;
use model::{Architecture, Connectivity, InputShape};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};
use trainer::network::Mode;

/// Times the authors' formulation of a locally connected ResNet-18 on the CPU, in float32.
#[derive(Parser)]
struct Arguments {
    /// Channels of the first stage; without it, nothing is run.
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// In pixels, height and width.
    #[arg(long, default_value = "224", value_name = "N")]
    input_size: usize,
    /// Values that the readout gives.
    #[arg(long, default_value = "1000", value_name = "N")]
    classes: usize,
    /// Images a forward pass.
    #[arg(long, default_value = "1,8,32", value_delimiter = ',', value_name = "N,N,…")]
    batch_sizes: Vec<usize>,
    /// Runs of every batch size after one to warm up; the best counts.
    #[arg(long, default_value = "2", value_name = "N")]
    runs: usize,
    /// Threads; without it, as many as there are cores.
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(width) = arguments.width else {
        println!("nothing to time without --width; see `cargo xtask bench export`");
        return Ok(());
    };
    if let Some(threads) = arguments.threads {
        tch::set_num_threads(threads);
    }
    let input = InputShape {
        channels: 3,
        height: arguments.input_size,
        width: arguments.input_size,
    };
    let connectivity = Connectivity::LocallyConnected { n_first_conv: 0 };
    let architecture = Architecture::resnet18(input, width, arguments.classes, connectivity);
    let network = AuthorsNetwork::draw(architecture.network()?, Device::Cpu)?;
    for &images in &arguments.batch_sizes {
        let shape = [images, input.channels, input.height, input.width].map(|length| length as i64);
        let images = Tensor::f_randn(shape, (Kind::Float, Device::Cpu))?;
        let mut best = f64::INFINITY;
        for run in 0..=arguments.runs {
            let start = Instant::now();
            let logits = no_grad(|| network.forward(&images, Mode::Evaluation))?;
            let seconds = start.elapsed().as_secs_f64();
            if run > 0 {
                best = best.min(seconds);
            }
            ensure!(
                logits.f_isfinite()?.f_all()?.f_double_value(&[])? == 1.0,
                "the logits aren't finite: the weights don't fit the network"
            );
        }
        let name = format!("authors_forward.b{}", shape[0]);
        println!("{}", json!({"name": name, "value": best, "unit": "s"}));
    }
    Ok(())
}
