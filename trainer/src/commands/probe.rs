//! `trainer probe`.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bytesize::ByteSize;
use serde_json::json;

use super::network_arguments::positive;
use super::train::non_negative;
use super::{load_images, load_network};
use crate::cli::{ComputeArguments, DataArguments, LoadingArguments};
use crate::probe::{Probe, ProbeOptions, probe};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint whose features are read; it isn't changed.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// The layer by its PyTorch name, such as layer2, layer3.0.relu1 or avgpool; may be given several times.
    #[arg(long = "layer", value_name = "NAME", required = true)]
    layers: Vec<String>,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    loading: LoadingArguments,
    /// Passes over the training images.
    #[arg(long, default_value = "20", value_name = "N", value_parser = positive)]
    epochs: usize,
    /// Images a step of the readout; more than there are make every step one of all images.
    #[arg(long, default_value = "128", value_name = "N", value_parser = positive)]
    batch_size: usize,
    /// AdamW's; it is multiplied by 0.25 after a half and after three quarters of the epochs.
    #[arg(long, default_value = "1e-3", value_name = "X", value_parser = non_negative)]
    learning_rate: f64,
    /// AdamW's.
    #[arg(long, default_value = "1e-2", value_name = "X", value_parser = non_negative)]
    weight_decay: f64,
    /// Decides the order of the images.
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,
    /// Memory for features of training images, such as 8GiB. Those that don't fit are computed again in every epoch.
    #[arg(long, default_value = "2GiB", value_name = "SIZE")]
    cache: ByteSize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let device = arguments.compute.apply()?;
    let (checkpoint, network) = load_network(&arguments.checkpoint, device)?;
    for layer in &arguments.layers {
        network.layer(layer)?;
    }
    let data = load_images(arguments.data.data.as_deref(), &checkpoint)?;
    let options = arguments.options();
    let mut probes = Vec::new();
    for layer in &arguments.layers {
        let preprocessing = &checkpoint.header().preprocessing;
        let result = probe(
            &network,
            preprocessing,
            &data,
            layer,
            &options,
            arguments.loading.options(),
            device,
        )?;
        tracing::info!(
            layer,
            top1 = format!("{:.2} %", result.test.top1 * 100.0),
            cached_images = result.cached_images,
            "test images"
        );
        probes.push(result);
    }
    if arguments.json {
        let report = json!({
            "checkpoint": arguments.checkpoint,
            "digest": checkpoint.digest(),
            "data": data.source,
            "options": options,
            "probes": probes,
        });
        println!("{report:#}");
    } else {
        print!("{}", table(&probes));
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn options(&self) -> ProbeOptions {
        ProbeOptions {
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            seed: self.seed,
            cache: self.cache.as_u64(),
        }
    }
}

/// A line a layer.
fn table(probes: &[Probe]) -> String {
    let widest = probes
        .iter()
        .map(|probe| probe.layer.len())
        .max()
        .unwrap_or(0)
        .max(5);
    let mut text = format!("{:<widest$} {:>9}", "layer", "features");
    for images in ["train", "test"] {
        text += &format!("  {:>11} {:>7} {:>7}", format!("{images} top-1"), "top-5", "loss");
    }
    text.push('\n');
    for Probe {
        layer,
        features,
        train,
        test,
        ..
    } in probes
    {
        text += &format!("{layer:<widest$} {features:>9}");
        for evaluation in [train, test] {
            text += &format!(
                "  {:>9.2} % {:>5.1} % {:>7.4}",
                evaluation.top1 * 100.0,
                evaluation.top5 * 100.0,
                evaluation.loss
            );
        }
        text.push('\n');
    }
    text
}
