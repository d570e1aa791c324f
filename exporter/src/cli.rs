//! The command line: arguments, logging, exit codes.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::commands::{export, inspect, verify};

/// Exports checkpoints as ONNX bundles for serving, and proves the bundles against the trainer's activations.
#[derive(Debug, Parser)]
#[command(name = "exporter", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Export a checkpoint to a model repository: REPO/NAME/VERSION/model.onnx and model.onnx.data.
    Export(export::Arguments),
    /// Compare a bundle's activations, computed with tract, with those that `trainer record` has recorded.
    Verify(verify::Arguments),
    /// Show what a bundle is: network, layers, sizes, provenance, and how it was verified. The weights aren't read.
    Inspect(inspect::Arguments),
}

/// Runs the program; errors are printed with their causes.
pub fn run(arguments: Arguments) -> ExitCode {
    start_logging();
    let result = match arguments.command {
        Command::Export(arguments) => export::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the program's last words")]
            {
                eprintln!("error: {error}");
                // A transparent error repeats the words of its cause.
                let mut last = error.to_string();
                for cause in error.chain().skip(1).map(ToString::to_string) {
                    if cause != last {
                        eprintln!("  because: {cause}");
                    }
                    last = cause;
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// Logs go to standard error, `RUST_LOG` chooses what is logged.
fn start_logging() {
    // tract tells at length what it loads.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,tract=warn"));
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
}
