//! `trainer record`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use model::Checkpoint;
use tch::{Device, Tensor};

use super::{build_network, load_data};
use crate::cli::{ComputeArguments, DataArguments};
use crate::data::{Loader, LoaderOptions, image_files};
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
    /// Images (JPEG, PNG, WebP, BMP, TIFF) in the place of a data set's: files, and folders, whose images are sorted by
    /// name. They are preprocessed as the checkpoint says.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "data")]
    stimuli: Vec<PathBuf>,
    /// The first so many images: of the test images, or of --stimuli.
    #[arg(long, default_value = "16", value_name = "N")]
    images: usize,
    #[command(flatten)]
    compute: ComputeArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let device = arguments.compute.apply()?;
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    // Before the weights, which take long in large networks.
    let images = if arguments.stimuli.is_empty() {
        test_images(arguments, &checkpoint, device)
    } else {
        stimuli(arguments, &checkpoint, device)
    }?;
    let network = build_network(&checkpoint, device)?;
    let digest = checkpoint.digest().to_owned();
    // The network has a copy of the weights; the file's pages only take memory from the activations.
    drop(checkpoint);
    recording::record(&network, &digest, &images, &arguments.output)?;
    tracing::info!(
        "activations of {} images in {}",
        images.size().first().copied().unwrap_or(0),
        arguments.output.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// The first test images of a data set, `[N, C, H, W]`.
fn test_images(arguments: &Arguments, checkpoint: &Checkpoint, device: Device) -> Result<Tensor> {
    let data = load_data(arguments.data.data.as_deref(), checkpoint)?;
    let indices: Vec<usize> = (0..arguments.images.clamp(1, data.test.len())).collect();
    let preprocessing = &checkpoint.header().preprocessing;
    let input = checkpoint.network().input;
    let loader = Loader::new(&data.test, preprocessing, input, device, LoaderOptions::default())?;
    Ok(loader.batch(&indices)?.images)
}

/// The first images of files and folders, `[N, C, H, W]`.
fn stimuli(arguments: &Arguments, checkpoint: &Checkpoint, device: Device) -> Result<Tensor> {
    let mut files = image_files::find(&arguments.stimuli).context("can't load the stimuli")?;
    files.truncate(arguments.images.max(1));
    let (header, input) = (checkpoint.header(), checkpoint.network().input);
    let images = image_files::batch(&files, &header.preprocessing, input, device);
    images.context("can't load the stimuli")
}
