//! The `exporter` program: see `exporter --help`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    exporter::cli::run(exporter::cli::Arguments::parse())
}
