//! `trainer convert`.
#![expect(clippy::print_stdout, reason = "prints what was written")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use model::{Checkpoint, checkpoint};

use super::checkpoint_arguments::{check_extension, describe};
use crate::convert::{authors, local};
use crate::training::{SavedState, training_path};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint.
    checkpoint: PathBuf,
    /// The file to write: NAME.pt for --to authors, NAME.safetensors for --to lc.
    output: PathBuf,
    /// What the checkpoint becomes.
    #[arg(long, value_enum, value_name = "FORM")]
    to: Form,
    /// So many first convolutions stay convolutional, with --to lc [default: 0].
    #[arg(long, value_name = "N")]
    n_first_conv: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A PyTorch checkpoint in the layout of the authors' implementation, for `torch.load`. The optimiser's state comes
    /// along where NAME.training.safetensors is there.
    Authors,
    /// A locally connected network that computes what the convolutional one does: every kernel is copied to all positions.
    Lc,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    ensure!(
        !same_file(&arguments.checkpoint, &arguments.output),
        "{} would replace the checkpoint that is converted; choose another name",
        arguments.output.display()
    );
    match arguments.to {
        Form::Authors => to_authors(arguments, &checkpoint)?,
        Form::Lc => to_local(arguments, &checkpoint)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn to_authors(arguments: &Arguments, checkpoint: &Checkpoint) -> Result<()> {
    ensure!(
        arguments.n_first_conv.is_none(),
        "--n-first-conv is for --to lc; --to authors changes no layer"
    );
    let extension = arguments.output.extension();
    ensure!(
        extension.is_none_or(|extension| extension != "safetensors"),
        "{} would be a PyTorch checkpoint, not a safetensors file; call it NAME.pt",
        arguments.output.display()
    );
    checkpoint.verify()?;
    let state = SavedState::beside(checkpoint)?;
    if state.is_none() {
        tracing::info!(
            "there is no {} of this checkpoint: the optimiser's state will be that of a new one",
            training_path(&arguments.checkpoint).display()
        );
    }
    authors::convert(checkpoint, state.as_ref(), &arguments.output)?;
    println!(
        "{}: {} parameters in the authors' layout, from digest {}",
        arguments.output.display(),
        checkpoint.network().parameter_count(),
        checkpoint.digest()
    );
    Ok(())
}

fn to_local(arguments: &Arguments, checkpoint: &Checkpoint) -> Result<()> {
    check_extension(&arguments.output)?;
    let converted = local::locally_connected(checkpoint, arguments.n_first_conv.unwrap_or(0))?;
    checkpoint.verify()?;
    let digest = checkpoint::write(&arguments.output, &converted.header, &converted.tensors)?;
    println!(
        "{}",
        describe(&arguments.output, &converted.header.architecture, &digest)
    );
    Ok(())
}

fn same_file(source: &std::path::Path, output: &std::path::Path) -> bool {
    let found = |path: &std::path::Path| path.canonicalize().ok();
    found(source).is_some_and(|source| Some(source) == found(output))
}
