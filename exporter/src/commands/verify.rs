//! `exporter verify`.

#![expect(clippy::print_stdout, reason = "the command's result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::verify::{VerifyProgress, VerifyRequest, attach, verify, write_report};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: REPO/NAME/VERSION.
    bundle: PathBuf,
    /// What `trainer record` has recorded: NAME.activations.safetensors.
    #[arg(long, value_name = "FILE")]
    recording: PathBuf,
    /// The largest error that passes, relative to the largest magnitude of a layer's recorded activations [default: 1e-4,
    /// 1e-2 for fp16 weights, 5e-2 for bf16 weights].
    #[arg(long, value_name = "X", value_parser = tolerance)]
    tolerance: Option<f64>,
    /// Don't write the verification into the bundle's metadata.
    #[arg(long)]
    read_only: bool,
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
    let bar = ProgressBar::new(0);
    let result = verify(&request, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let report = result?;
    println!("{report}");
    if let Some(path) = &arguments.report {
        write_report(&report, path)?;
    }
    if report.failed() > 0 {
        bail!(
            "{} of {} layers differ from the recording by more than {:e}; the worst is `{}`",
            report.failed(),
            report.layers.len(),
            report.tolerance,
            report.worst_layer
        );
    }
    if !report.data_unchanged {
        bail!(
            "the bundle's data file is not the one that was exported: copy it again, or export the checkpoint again"
        );
    }
    if !arguments.read_only {
        attach(&report, &request.bundle)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(bar: &ProgressBar, progress: VerifyProgress) {
    // An invalid template leaves indicatif's own style.
    let style =
        |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    match progress {
        VerifyProgress::Computing { segments, total } => {
            bar.set_style(style("computing {wide_bar} part {pos} of {len}, {eta} left"));
            bar.set_length(total as u64);
            bar.set_position(segments as u64);
        }
        VerifyProgress::Checking { bytes, total } => {
            bar.set_style(style(
                "checking the weights {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
            ));
            bar.set_length(total);
            bar.set_position(bytes);
        }
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("it has to be a number that is not negative".into()),
    }
}
