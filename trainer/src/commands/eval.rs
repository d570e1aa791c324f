//! `trainer eval`.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::{load_data, load_network};
use crate::cli::{ComputeArguments, DataArguments, LoadingArguments};
use crate::data::Loader;
use crate::training::evaluate;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint.
    checkpoint: PathBuf,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    loading: LoadingArguments,
    /// Images a forward pass.
    #[arg(long, default_value = "128", value_name = "N")]
    batch_size: usize,
    #[command(flatten)]
    compute: ComputeArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let device = arguments.compute.apply()?;
    let (checkpoint, network) = load_network(&arguments.checkpoint, device)?;
    let data = load_data(arguments.data.data.as_deref(), &checkpoint)?;
    let preprocessing = &checkpoint.header().preprocessing;
    let input = network.network().input;
    let loader = Loader::new(
        &data.test,
        preprocessing,
        input,
        device,
        arguments.loading.options(),
    )?;
    let result = evaluate(&network, &loader, arguments.batch_size)?;
    println!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4} on {} test images of {}",
        result.top1 * 100.0,
        result.top5 * 100.0,
        result.loss,
        result.images,
        data.source
    );
    Ok(ExitCode::SUCCESS)
}
