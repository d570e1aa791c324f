//! Ventral's chores, run as `cargo xtask …`: set-up and tests.

mod report;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use setup::Variant;

/// Ventral's chores
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Put libtorch and ONNX Runtime under target/native, where the build looks for them
    Setup {
        /// Libraries that compute on NVIDIA GPUs (CUDA 13; several gigabytes) in place of those for CPUs
        #[arg(long)]
        cuda: bool,
    },
    /// Set up what is missing and run all tests
    Test,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Setup { cuda } => setup::set_up(if cuda { Variant::Cuda } else { Variant::Cpu }),
        Chore::Test => test::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
