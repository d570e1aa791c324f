//! `trainer eval`.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use model::Checkpoint;

use super::{load_data, load_network};
use crate::cli::{ComputeArguments, DataArguments, LoadingArguments};
use crate::data::{ClassMap, DataSet, Loader};
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
    let mut data = load_data(arguments.data.data.as_deref(), &checkpoint)?;
    match_classes(&mut data, &checkpoint)?;
    let preprocessing = &checkpoint.header().preprocessing;
    let input = network.network().input;
    let loader = Loader::new(
        &data.test,
        preprocessing,
        input,
        device,
        arguments.loading.options(),
    )?;
    // Ctrl-C ends the program here, as there is nothing to keep.
    let interrupted = AtomicBool::new(false);
    let result = evaluate(&network, &loader, arguments.batch_size, &interrupted)?;
    let result = result.context("the evaluation was interrupted")?;
    loader.tell_corrupt("test");
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

/// Makes the labels of the test images those of the network's classes, by their names where both sides have some.
fn match_classes(data: &mut DataSet, checkpoint: &Checkpoint) -> Result<()> {
    let network = &checkpoint.header().class_names;
    match ClassMap::new(&data.class_names, network)? {
        ClassMap::Same => {}
        ClassMap::Unknown => {
            let count = checkpoint.network().readout.classes;
            if data.classes() != count {
                tracing::warn!(
                    "the names of classes are not known on both sides: labels 0 to {} are taken for those of the network's \
                     {count} classes",
                    data.classes().saturating_sub(1)
                );
            }
        }
        ClassMap::Other(classes) => {
            tracing::info!(
                "classes are matched by their names: the network has them in another order, or more"
            );
            data.test = data.test.relabelled(&classes);
        }
    }
    Ok(())
}
