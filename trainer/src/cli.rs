//! The command line: arguments, logging, exit codes.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::commands::{
    convert, data, dynamics, eval, import, init, plan, presets, probe, record, stimuli, sweep, train,
};
use crate::data::{LoaderOptions, default_workers};
use crate::device::DeviceChoice;
use crate::run::{ComputeSettings, DataSettings};

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
    /// Train networks of the paper with several learning rates and seeds; write tables and figures.
    Sweep(sweep::Arguments),
    /// List the networks of the paper whose recipes `trainer train --preset` takes, with the paper's results.
    Presets(presets::Arguments),
    /// Say what memory training will need and what a step will compute and move, before anything is allocated.
    Plan(plan::Arguments),
    /// Write the checkpoint of an untrained network.
    Init(init::Arguments),
    /// Say what a data set holds: counts, classes, sizes, and images that can't be read.
    Data(data::Arguments),
    /// Classify the test images with a checkpoint and print its accuracy.
    Eval(eval::Arguments),
    /// Import a network of PyTorch's: a checkpoint of the authors' implementation, or a ResNet with torchvision's names, as
    /// `torch.save` or safetensors wrote it. Nothing in it is run.
    Import(import::Arguments),
    /// Write a checkpoint in another form: in the authors' layout for PyTorch, or a convolutional network as a locally
    /// connected one that computes the same.
    Convert(convert::Arguments),
    /// Train a linear readout on frozen features of a layer, and say how well it classifies.
    Probe(probe::Arguments),
    /// Record every layer's activations for some images, for `exporter verify`.
    Record(record::Arguments),
    /// Write some test images as PNG files.
    Stimuli(stimuli::Arguments),
    /// Simulate how neurons come to share weights through lateral inhibition; write a table and a picture.
    Dynamics(dynamics::Arguments),
}

/// Which images to use; every command that needs images has these.
#[derive(Debug, clap::Args)]
pub struct DataArguments {
    /// A data set: an image folder (ImageNet, TinyImageNet), CIFAR's binary version, IDX files (the MNIST family) or tar
    /// shards; `trainer data PATH` says what is there. Without it, the part of Fashion-MNIST that the program carries.
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
}

/// How images are read; every command that classifies them has these.
#[derive(Debug, clap::Args)]
pub struct LoadingArguments {
    /// Threads that decode images, ahead of the network; they don't change the result [default: a core each, 16 at most].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Leave images out that can't be decoded, with a warning, instead of ending there.
    #[arg(long)]
    pub skip_corrupt: bool,
}

impl LoadingArguments {
    /// How many threads decode images.
    pub(crate) fn workers(&self) -> usize {
        self.workers.map_or_else(default_workers, usize::from)
    }

    /// Lays what is given over settings.
    pub(crate) fn apply(&self, settings: &mut DataSettings) {
        settings.workers = self.workers.map(usize::from).or(settings.workers);
        settings.skip_corrupt |= self.skip_corrupt;
    }

    /// For images that are not varied.
    pub(crate) fn options(&self) -> LoaderOptions {
        LoaderOptions {
            workers: self.workers(),
            skip_corrupt: self.skip_corrupt,
            ..LoaderOptions::default()
        }
    }
}

/// Where to compute; every command that computes has these.
#[derive(Debug, clap::Args)]
pub struct ComputeArguments {
    /// auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// Threads on the CPU; without it, as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub threads: Option<i32>,
}

impl ComputeArguments {
    /// Sets the number of threads and finds the device.
    pub(crate) fn apply(&self) -> anyhow::Result<tch::Device> {
        let mut settings = ComputeSettings::default();
        self.lay_over(&mut settings);
        Ok(settings.start()?)
    }

    /// Lays what is given over settings.
    pub(crate) fn lay_over(&self, settings: &mut ComputeSettings) {
        if let Some(device) = self.device {
            settings.device = device;
        }
        let threads = self.threads.and_then(|threads| usize::try_from(threads).ok());
        settings.threads = threads.or(settings.threads);
    }
}

/// Runs the program; errors are printed with their causes.
pub fn run(arguments: Arguments) -> ExitCode {
    start_logging();
    let result = match arguments.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Presets(arguments) => presets::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Data(arguments) => data::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Record(arguments) => record::run(&arguments),
        Command::Stimuli(arguments) => stimuli::run(&arguments),
        Command::Dynamics(arguments) => dynamics::run(&arguments),
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
