//! `trainer presets`.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::presets::{ALL, Table};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.json {
        let presets = serde_json::to_string_pretty(ALL).context("can't write the presets")?;
        println!("{presets}");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", Table(ALL));
    println!(
        "\ntop-1 on ImageNet and Brain-Score (average, and of V1 alone) are the paper's. The paper gives no learning rates \
         for the short ResNets: they have those of the ResNet-18 of the same connectivity."
    );
    Ok(ExitCode::SUCCESS)
}
