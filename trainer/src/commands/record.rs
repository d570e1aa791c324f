//! `trainer record`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::{load_data, load_network};
use crate::cli::{ComputeArguments, DataArguments};
use crate::recording;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint.
    checkpoint: PathBuf,
    /// The recording to write: NAME.activations.safetensors.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArguments,
    /// The first so many test images.
    #[arg(long, default_value = "16", value_name = "N")]
    images: usize,
    #[command(flatten)]
    compute: ComputeArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let device = arguments.compute.apply()?;
    let (checkpoint, network) = load_network(&arguments.checkpoint, device)?;
    let data = load_data(arguments.data.data.as_deref(), &checkpoint)?;
    let indices: Vec<usize> = (0..arguments.images.clamp(1, data.test.len())).collect();
    let (images, _) = data
        .test
        .batch(&indices, &checkpoint.header().preprocessing, device)?;
    recording::record(&network, checkpoint.digest(), &images, &arguments.output)?;
    tracing::info!(
        "activations of {} images in {}",
        indices.len(),
        arguments.output.display()
    );
    Ok(ExitCode::SUCCESS)
}
