//! `trainer train`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use model::{Architecture, Checkpoint, CheckpointHeader, Connectivity};
use serde_json::json;

use crate::cli::{ComputeArguments, DataArguments};
use crate::data::{self, Dataset};
use crate::network::{Initialisation, TorchNetwork};
use crate::training::{
    AdamWOptions, CheckpointWriter, Log, Outcome, Trainer, TrainingOptions, TrainingState, open_for_resuming,
};

/// The status of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint to write: NAME.safetensors. Beside it come NAME.training.safetensors, to resume from, and the log.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    network: NetworkArguments,
    /// Share weights after the optimiser's step on iterations 0, N, 2N, … of every epoch; without it, never.
    #[arg(long, value_name = "N", value_parser = positive)]
    sleep_every: Option<usize>,
    /// Passes over the training images.
    #[arg(long, default_value = "10", value_name = "N", value_parser = positive)]
    epochs: usize,
    /// Images a step.
    #[arg(long, default_value = "128", value_name = "N", value_parser = positive)]
    batch_size: usize,
    /// AdamW's; it is multiplied by 0.25 after a half and after three quarters of the epochs.
    #[arg(long, default_value = "1e-3", value_name = "X", value_parser = non_negative)]
    learning_rate: f64,
    /// AdamW's.
    #[arg(long, default_value = "1e-2", value_name = "X", value_parser = non_negative)]
    weight_decay: f64,
    /// Decides the initial weights and the order of the images.
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,
    /// Go on with the run whose checkpoint is at --output; all other options must be those of that run.
    #[arg(long)]
    resume: bool,
    /// The log, a JSON object a line [default: NAME.log.jsonl].
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// Which network to train; its input and its classes are those of the data set.
#[derive(Debug, clap::Args)]
struct NetworkArguments {
    /// The family of networks.
    #[arg(long, value_enum, default_value = "resnet18")]
    architecture: Family,
    /// Residual blocks of every stage [default: 2,2,2,2 for resnet18, 3,3,3 for resnet-cifar].
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = positive)]
    blocks: Option<Vec<usize>>,
    /// Channels of the first stage; every following one has twice as many [default: 64 for resnet18, 16 for
    /// resnet-cifar].
    #[arg(long, value_name = "N", value_parser = positive)]
    width: Option<usize>,
    /// Whether every position has weights of its own.
    #[arg(long, value_enum, default_value = "lc")]
    connectivity: ConnectivityChoice,
    /// So many first convolutions stay convolutional in a locally connected network.
    #[arg(long, default_value = "0", value_name = "N")]
    n_first_conv: usize,
    /// How locally connected weights are drawn.
    #[arg(long, value_enum, default_value = "random")]
    initialisation: InitialisationChoice,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Family {
    /// torchvision's: 7x7 stem of stride 2 and max pooling.
    Resnet18,
    /// The 6n+2 family: 3x3 stem without pooling.
    ResnetCifar,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ConnectivityChoice {
    /// Locally connected: every position has weights of its own.
    Lc,
    /// Convolutional: positions share their weights.
    Conv,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum InitialisationChoice {
    /// Every position draws its own weights.
    Random,
    /// One kernel is drawn and copied to every position.
    Conv,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        arguments
            .output
            .extension()
            .is_some_and(|extension| extension == "safetensors"),
        "--output {} should end in .safetensors",
        arguments.output.display()
    );
    let device = arguments.compute.apply()?;
    let data = data::load(arguments.data.data.as_deref()).context("can't load the data set")?;
    let architecture = arguments.network.architecture(&data);
    let options = arguments.options();
    let header = arguments.header(architecture, &data, &options);
    let network = header.architecture.network()?;
    tracing::info!(
        parameters = network.parameter_count(),
        training_images = data.train.len(),
        test_images = data.test.len(),
        "{}",
        data.source
    );

    tch::manual_seed(i64::from_ne_bytes(options.seed.to_ne_bytes()));
    let (network, start) = if arguments.resume {
        resume(arguments, &header, &options, device)?
    } else {
        let network = TorchNetwork::initialise(network, arguments.network.initialisation(), device)?;
        let start = TrainingState::fresh(&network, &options)?;
        (network, start)
    };

    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("can't handle Ctrl-C")?;
    let log = arguments
        .log
        .clone()
        .unwrap_or_else(|| arguments.output.with_extension("log.jsonl"));
    let mut log = Log::open(&log, arguments.resume)?;
    let preprocessing = header.preprocessing.clone();
    let writer = CheckpointWriter::new(&arguments.output, header, options);
    let trainer = Trainer {
        network: &network,
        data: &data,
        preprocessing: &preprocessing,
        device,
        options,
        interrupted: &interrupted,
    };
    let output = arguments.output.display();
    match trainer.run(start, &writer, &mut log)? {
        Outcome::Finished(evaluation) => {
            tracing::info!(
                "top-1 {:.2} % of {} test images: {output}",
                evaluation.top1 * 100.0,
                evaluation.images
            );
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Interrupted => {
            tracing::warn!(
                "interrupted; {output} is complete, the same command with --resume goes on with it"
            );
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

fn resume(
    arguments: &Arguments,
    header: &CheckpointHeader,
    options: &TrainingOptions,
    device: tch::Device,
) -> Result<(TorchNetwork, TrainingState)> {
    let checkpoint: Checkpoint = open_for_resuming(&arguments.output).context("there is no run to resume")?;
    checkpoint.verify()?;
    let stored = checkpoint.header();
    ensure!(
        stored.architecture == header.architecture && stored.preprocessing == header.preprocessing,
        "{} was trained with another network or other images; resume with the options that it was started with",
        arguments.output.display()
    );
    let network = TorchNetwork::load(&checkpoint, device)?;
    let state = TrainingState::load(&arguments.output, &checkpoint, &network, options)?;
    Ok((network, state))
}

impl Arguments {
    fn options(&self) -> TrainingOptions {
        TrainingOptions {
            epochs: self.epochs,
            batch_size: self.batch_size,
            optimizer: AdamWOptions {
                learning_rate: self.learning_rate,
                weight_decay: self.weight_decay,
                ..AdamWOptions::default()
            },
            sleep_every: self.sleep_every,
            seed: self.seed,
        }
    }

    fn header(
        &self,
        architecture: Architecture,
        data: &Dataset,
        options: &TrainingOptions,
    ) -> CheckpointHeader {
        let initialisation = match self.network.initialisation {
            InitialisationChoice::Random => "random",
            InitialisationChoice::Conv => "conv",
        };
        let provenance = BTreeMap::from([
            (
                "program".to_owned(),
                json!(concat!("trainer ", env!("CARGO_PKG_VERSION"))),
            ),
            ("data".to_owned(), json!(data.source)),
            ("initialisation".to_owned(), json!(initialisation)),
            ("options".to_owned(), json!(options)),
        ]);
        CheckpointHeader {
            architecture,
            preprocessing: data.preprocessing(),
            class_names: data.class_names.clone(),
            provenance,
        }
    }
}

impl NetworkArguments {
    fn architecture(&self, data: &Dataset) -> Architecture {
        let connectivity = match self.connectivity {
            ConnectivityChoice::Lc => Connectivity::LocallyConnected {
                n_first_conv: self.n_first_conv,
            },
            ConnectivityChoice::Conv => Connectivity::Convolutional,
        };
        let (input, classes) = (data.train.shape(), data.class_names.len());
        let mut architecture = match self.architecture {
            Family::Resnet18 => {
                Architecture::resnet18(input, self.width.unwrap_or(64), classes, connectivity)
            }
            Family::ResnetCifar => {
                Architecture::resnet_cifar(3, input, self.width.unwrap_or(16), classes, connectivity)
            }
        };
        if let Some(blocks) = &self.blocks {
            architecture.blocks.clone_from(blocks);
        }
        architecture
    }

    fn initialisation(&self) -> Initialisation {
        match self.initialisation {
            InitialisationChoice::Random => Initialisation::Random,
            InitialisationChoice::Conv => Initialisation::Convolutional { deviation: 0.0 },
        }
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".into()),
        Ok(value) => Ok(value),
    }
}

fn non_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number of at least 0".into()),
    }
}
