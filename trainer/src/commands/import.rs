//! `trainer import`.
#![expect(clippy::print_stdout, reason = "prints what was imported")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::checkpoint_arguments::{HeaderArguments, describe};
use super::network_arguments::input_size;
use crate::import::{ImportOptions, import};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What `torch.save` has written, or a safetensors file; its contents tell which.
    source: PathBuf,
    /// The checkpoint to write: NAME.safetensors.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The network's input size in pixels, as N or HEIGHTxWIDTH; a convolutional network doesn't say
    /// [default: 224 for convolutional networks of ImageNet's 1000 classes].
    #[arg(long, value_name = "SIZE", value_parser = input_size)]
    input_size: Option<(usize, usize)>,
    #[command(flatten)]
    header: HeaderArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = ImportOptions {
        input_size: arguments.input_size,
        preprocessing: arguments.header.preprocessing,
        class_names: arguments.header.class_names()?,
    };
    let (header, digest) = import(&arguments.source, &arguments.output, &options)?;
    println!("{}", describe(&arguments.output, &header.architecture, &digest));
    Ok(ExitCode::SUCCESS)
}
