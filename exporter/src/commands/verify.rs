//! `exporter verify`.

#![expect(clippy::print_stdout, reason = "the command's result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::verify::{VerifyRequest, verify, write_report};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: REPO/NAME/VERSION.
    bundle: PathBuf,
    /// What `trainer record` has recorded: NAME.activations.safetensors.
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// The largest error that passes, relative to the largest magnitude of a layer's recorded activations.
    #[arg(long, default_value = "1e-4", value_name = "X", value_parser = tolerance)]
    tolerance: f64,
    /// Also write the table as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let request = VerifyRequest {
        bundle: arguments.bundle,
        recording: arguments.recording,
        tolerance: arguments.tolerance,
    };
    let report = verify(&request)?;
    println!("{report}");
    if let Some(path) = &arguments.report {
        write_report(&report, path)?;
    }
    if !report.passed {
        bail!(
            "{} of {} layers differ from the recording by more than {:e}; the worst is `{}`",
            report.failed(),
            report.layers.len(),
            report.tolerance,
            report.worst_layer
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("it has to be a number that is not negative".into()),
    }
}
