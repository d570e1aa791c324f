//! `trainer import`.
#![expect(clippy::print_stdout, reason = "prints what was imported")]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use model::Connectivity;

use crate::import::authors::{ImportOptions, ImportPreprocessing, import};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The PyTorch checkpoint.
    source: PathBuf,
    /// The checkpoint to write: NAME.safetensors.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The network's input size in pixels, as N or HEIGHTxWIDTH; a convolutional checkpoint doesn't say.
    #[arg(long, value_name = "SIZE", value_parser = input_size)]
    input_size: Option<(usize, usize)>,
    /// How images become the network's input. Networks that don't take colour images always use unit-range.
    #[arg(long, value_enum, default_value = "imagenet")]
    preprocessing: ImportPreprocessing,
    /// Names of the classes in the order of the logits, a name a line.
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let class_names = match &arguments.class_names {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
            text.lines()
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(Into::into)
                .collect()
        }
        None => Vec::new(),
    };
    let options = ImportOptions {
        input_size: arguments.input_size,
        preprocessing: arguments.preprocessing,
        class_names,
    };
    let (header, digest) = import(&arguments.source, &arguments.output, &options)?;
    let architecture = &header.architecture;
    let connectivity = match architecture.connectivity {
        Connectivity::Convolutional => "convolutional".to_owned(),
        Connectivity::LocallyConnected { n_first_conv: 0 } => "locally connected".to_owned(),
        Connectivity::LocallyConnected { n_first_conv } => {
            format!("locally connected after {n_first_conv} convolutions")
        }
    };
    println!(
        "{}: ResNet of {:?} blocks, width {}, {connectivity}, {}x{} input, {} classes, digest {digest}",
        arguments.output.display(),
        architecture.blocks,
        architecture.width,
        architecture.input.height,
        architecture.input.width,
        architecture.classes,
    );
    Ok(ExitCode::SUCCESS)
}

fn input_size(text: &str) -> Result<(usize, usize), String> {
    let length = |text: &str| text.parse::<usize>().ok().filter(|&length| length > 0);
    let size = match text.split_once('x') {
        Some((height, width)) => length(height).zip(length(width)),
        None => length(text).map(|length| (length, length)),
    };
    size.ok_or_else(|| "expected a number of pixels, or HEIGHTxWIDTH".into())
}
