//! Ventral's chores, run as `cargo xtask …`: set-up, demo, tests, benchmarks, licences.

mod bench;
mod cargo;
mod demo;
mod licences;
mod report;
mod server;
mod setup;
mod test;
mod workspace;

use std::path::PathBuf;
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
    /// Train a small network, export it, serve it, and draw what a client gets from the server
    Demo {
        /// A data set, as for `trainer train --data` [default: a part of Fashion-MNIST]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where checkpoint, bundle and picture go; an earlier demo there is removed [default: target/demo]
        #[arg(long, value_name = "DIR")]
        output_dir: Option<PathBuf>,
    },
    /// Set up what is missing and run all tests
    Test {
        /// Leave out the Python tests, which need downloads of their own
        #[arg(long)]
        quick: bool,
    },
    /// Measure the programs at full size, against baselines; results go to target/bench as JSON
    Bench {
        #[command(subcommand)]
        benchmark: bench::Benchmark,
    },
    /// Check that deny.toml allows every dependency's licence and origin
    Licences,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Setup { cuda } => set_up(cuda),
        Chore::Demo { data, output_dir } => {
            demo::run(data.as_deref(), output_dir).map(|()| ExitCode::SUCCESS)
        }
        Chore::Test { quick } => test::run(quick),
        Chore::Bench { benchmark } => bench::run(&benchmark).map(|()| ExitCode::SUCCESS),
        Chore::Licences => licences::check().map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn set_up(cuda: bool) -> anyhow::Result<ExitCode> {
    setup::set_up(if cuda { Variant::Cuda } else { Variant::Cpu })?;
    Ok(ExitCode::SUCCESS)
}
