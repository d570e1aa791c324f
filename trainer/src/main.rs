//! The `trainer` program: see `trainer --help`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    trainer::cli::run(trainer::cli::Arguments::parse())
}
