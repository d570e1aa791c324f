//! The command line: arguments, logging, exit codes.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::commands::{eval, import, record, stimuli, train};
use crate::device::DeviceChoice;

/// Trains locally connected and convolutional networks as models of the primate ventral stream.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network and write its checkpoint.
    Train(train::Arguments),
    /// Classify the test images with a checkpoint and print its accuracy.
    Eval(eval::Arguments),
    /// Import a checkpoint of the authors' PyTorch implementation (a `.pt` file). Nothing in it is run.
    Import(import::Arguments),
    /// Record every layer's activations for some test images, for `exporter verify`.
    Record(record::Arguments),
    /// Write some test images as PNG files.
    Stimuli(stimuli::Arguments),
}

/// Which images to use; every command that needs images has these.
#[derive(Debug, clap::Args)]
pub struct DataArguments {
    /// Folder of a data set in IDX format (the MNIST family); without it, the part of Fashion-MNIST that the program
    /// carries.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Where to compute; every command that computes has these.
#[derive(Debug, clap::Args)]
pub struct ComputeArguments {
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Threads on the CPU; without it, as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub threads: Option<i32>,
}

impl ComputeArguments {
    /// Sets the number of threads and finds the device.
    pub(crate) fn apply(&self) -> anyhow::Result<tch::Device> {
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads);
        }
        let device = self.device.resolve()?;
        tracing::info!(?device, threads = tch::get_num_threads(), "computing");
        Ok(device)
    }
}

/// Runs the program; errors are printed with their causes.
pub fn run(arguments: Arguments) -> ExitCode {
    start_logging();
    let result = match arguments.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Record(arguments) => record::run(&arguments),
        Command::Stimuli(arguments) => stimuli::run(&arguments),
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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
}
