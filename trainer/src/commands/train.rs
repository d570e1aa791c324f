//! `trainer train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};

use super::checkpoint_arguments::check_extension;
use super::network_arguments::{NetworkArguments, input_size, positive};
use super::override_with;
use super::recipe_arguments::RecipeArguments;
use super::sleep_arguments::SleepArguments;
use super::step_arguments::StepArguments;
use crate::cli::{ComputeArguments, DataArguments, LoadingArguments};
use crate::data::Augmentation;
use crate::run::execution::{Ending, Execution};
use crate::run::{DataSettings, Run, file};
use crate::training::{Outcome, Schedule};

/// The status of a program that Ctrl-C ended.
pub(super) const INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint to write: NAME.safetensors. Beside it come NAME.toml, the run in full, NAME.training.safetensors, to
    /// resume from, and the log [default: --config with the ending .safetensors].
    #[arg(long, short, value_name = "FILE", required_unless_present = "config")]
    output: Option<PathBuf>,
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    settings: RunArguments,
    /// Decides the initial weights, the order of the images and the noise of the sleep phase [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// The optimiser's at the beginning [default: 1e-3].
    #[arg(long, value_name = "X", value_parser = non_negative)]
    learning_rate: Option<f64>,
    /// Hold so many training images out, drawn by a seed, and evaluate with them instead of the test images [default: 0].
    #[arg(long, value_name = "N")]
    hold_out: Option<usize>,
    /// Decides which images are held out [default: 0].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    hold_out_seed: Option<u64>,
    /// Begin with the weights of a checkpoint instead of drawn ones. A locally connected network begins as the convolutional
    /// one of the checkpoint, each kernel copied to every position.
    #[arg(long, value_name = "FILE", conflicts_with = "initialisation")]
    start_from: Option<PathBuf>,
    /// Go on with the run whose checkpoint is at --output; without --preset and --config, settings are those of its run file.
    #[arg(long)]
    resume: bool,
    /// The log, a JSON object a line [default: NAME.log.jsonl].
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Folder for TensorBoard's event files, which get the log's figures.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
}

/// What all runs of a sweep have in common, and one run has too.
#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    loading: LoadingArguments,
    #[command(flatten)]
    images: ImageArguments,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    sleep: SleepArguments,
    /// Passes over the training images; 0 writes the untrained network [default: 10].
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    #[command(flatten)]
    pub(super) step: StepArguments,
    /// How the learning rate falls [default: steps].
    #[arg(long, value_enum, value_name = "NAME")]
    schedule: Option<Schedule>,
    /// The optimiser's [default: 1e-2].
    #[arg(long, value_name = "X", value_parser = non_negative)]
    weight_decay: Option<f64>,
    /// Epochs from one checkpoint to the next; the last epoch always ends with one [default: 1].
    #[arg(long, value_name = "N", value_parser = positive)]
    checkpoint_every: Option<usize>,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// What images become.
#[derive(Debug, clap::Args)]
struct ImageArguments {
    /// How training images are varied: none, random-resized-crop, padded-crop:PIXELS[,flip], shift:PIXELS[,flip]
    /// [default: none].
    #[arg(long, value_name = "KIND")]
    augment: Option<Augmentation>,
    /// The network's input size in pixels, as N or HEIGHTxWIDTH: images of another size are resized by their shorter side
    /// and cropped [default: that of the images].
    #[arg(long, value_name = "SIZE", value_parser = input_size)]
    input_size: Option<(usize, usize)>,
    /// Channels of the network's input: 3 for colour, 1 for grey [default: those of the images].
    #[arg(long, value_name = "N", value_parser = channels)]
    channels: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let output = arguments.output()?;
    let run = arguments.run(&output)?;
    let device = run.compute.start()?;
    let data = run.data.open().context("can't open the data set")?;
    let log = arguments
        .log
        .clone()
        .unwrap_or_else(|| output.with_extension("log.jsonl"));
    let interrupted = interruption()?;
    let execution = Execution {
        run: &run,
        data: &data,
        device,
        output: &output,
        log: &log,
        events: arguments.tensorboard.as_deref(),
        resume: arguments.resume,
        memory: arguments.settings.step.memory(device),
        interrupted: &interrupted,
    };
    let output = output.display();
    match execution.execute()? {
        Ending::Untrained => {
            tracing::info!("no epochs of training: {output} holds the network as it was drawn");
            Ok(ExitCode::SUCCESS)
        }
        Ending::Trained(Outcome::Finished(evaluation)) => {
            tracing::info!(
                "top-1 {:.2} % of {} test images: {output}",
                evaluation.top1 * 100.0,
                evaluation.images
            );
            Ok(ExitCode::SUCCESS)
        }
        Ending::Trained(Outcome::Interrupted) => {
            tracing::warn!(
                "interrupted; {output} is complete, the same command with --resume goes on with it"
            );
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// Becomes true at Ctrl-C. The second time ends the program at once, whatever it is doing.
pub(super) fn interruption() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        tracing::warn!("interrupted: what is being done is brought to an end; Ctrl-C again ends it at once");
    };
    ctrlc::set_handler(handler).context("can't handle Ctrl-C")?;
    Ok(interrupted)
}

impl Arguments {
    /// The checkpoint to write. Only one that is named is overwritten.
    fn output(&self) -> Result<PathBuf> {
        if let Some(output) = &self.output {
            check_extension(output)?;
            return Ok(output.clone());
        }
        let config = self.recipe.config.as_deref().unwrap_or(Path::new(""));
        let output = config.with_extension("safetensors");
        ensure!(
            self.resume || !output.exists(),
            "{} is there already; name the checkpoint to write with --output, or go on with it with --resume",
            output.display()
        );
        Ok(output)
    }

    fn run(&self, output: &Path) -> Result<Run> {
        let beside = file::beside(output);
        let own = self.resume && self.recipe.preset.is_none() && self.recipe.config.is_none();
        let mut run = if own && beside.exists() {
            file::read(&beside)?
        } else {
            self.recipe.run()?
        };
        self.settings.apply(&mut run);
        override_with(&mut run.training.seed, self.seed.as_ref());
        override_with(&mut run.optimizer.learning_rate, self.learning_rate.as_ref());
        override_with(&mut run.data.hold_out, self.hold_out.as_ref());
        override_with(&mut run.data.hold_out_seed, self.hold_out_seed.as_ref());
        if self.start_from.is_some() {
            run.network.start_from.clone_from(&self.start_from);
        }
        run.check()?;
        self.keep_config(output, &run)?;
        Ok(run)
    }

    /// Refuses to write a run with other settings over the file that it was read from.
    fn keep_config(&self, output: &Path, run: &Run) -> Result<()> {
        let Some(config) = &self.recipe.config else {
            return Ok(());
        };
        let beside = file::beside(output);
        let found = |path: &Path| path.canonicalize().ok();
        if self.resume || found(config) != found(&beside) {
            return Ok(());
        }
        let differences = file::differences(&file::read(config)?, run);
        ensure!(
            differences.is_empty(),
            "the run would be written over {}, which has other settings than the options given ({}); name another checkpoint \
             with --output",
            config.display(),
            differences.join("; ")
        );
        Ok(())
    }
}

impl RunArguments {
    /// Lays what is given over a run.
    pub(super) fn apply(&self, run: &mut Run) {
        if self.data.data.is_some() {
            run.data.path.clone_from(&self.data.data);
        }
        self.loading.apply(&mut run.data);
        self.images.apply(&mut run.data);
        self.network.apply(&mut run.network);
        self.sleep.apply(&mut run.sleep);
        self.step.apply(run);
        override_with(&mut run.training.epochs, self.epochs.as_ref());
        override_with(&mut run.training.schedule, self.schedule.as_ref());
        override_with(&mut run.training.checkpoint_every, self.checkpoint_every.as_ref());
        override_with(&mut run.optimizer.weight_decay, self.weight_decay.as_ref());
        self.compute.lay_over(&mut run.compute);
    }
}

impl ImageArguments {
    fn apply(&self, settings: &mut DataSettings) {
        if let Some((height, width)) = self.input_size {
            settings.input_size = Some([height, width]);
        }
        settings.channels = self.channels.or(settings.channels);
        override_with(&mut settings.augmentation, self.augment.as_ref());
    }
}

/// Parses a finite number of at least 0.
pub(super) fn non_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number of at least 0".into()),
    }
}

/// Parses a number of channels that images can have.
fn channels(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("expected 1 or 3".into()),
    }
}
