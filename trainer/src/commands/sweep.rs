//! `trainer sweep`.
#![expect(clippy::print_stdout, reason = "prints what was found")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::network_arguments::positive;
use super::train::{INTERRUPTED, RunArguments, interruption, non_negative};
use crate::sweep::{Plan, Runner, Sweep};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where tables, figures and a folder for every run go. The same command goes on with a sweep that was interrupted or
    /// killed; what is finished there isn't done again.
    #[arg(long, short, value_name = "DIR")]
    output_dir: PathBuf,
    /// A TOML file with `presets`, `learning_rates`, `seeds`, `[choice]` and, as `[run.network]` and so on, sections of a run
    /// file; other options change it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Networks of the paper [default: the eleven that are trained].
    #[arg(long, value_name = "NAME,NAME,…", value_delimiter = ',')]
    presets: Option<Vec<String>>,
    /// Learning rates to choose from, by accuracy on images that are held out of the training set [default: each preset's
    /// own, with nothing to choose].
    #[arg(long, value_name = "X,X,…", value_delimiter = ',', value_parser = non_negative)]
    learning_rates: Option<Vec<f64>>,
    /// Seeds of the runs that are tested [default: 1].
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seeds: Option<Vec<u64>>,
    /// Epochs of the runs that choose a learning rate [default: --epochs].
    #[arg(long, value_name = "N", value_parser = positive)]
    choice_epochs: Option<usize>,
    /// Their seeds [default: --seeds].
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    choice_seeds: Option<Vec<u64>>,
    /// Training images that are held out while a learning rate is chosen [default: 10000, or a sixth of fewer than 60,000].
    #[arg(long, value_name = "N", value_parser = positive)]
    choice_hold_out: Option<usize>,
    /// Folder for TensorBoard's event files, with a folder for every run.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    #[command(flatten)]
    settings: RunArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let sweep = arguments.sweep()?;
    let plan = Plan::new(&sweep, |run| arguments.settings.apply(run))?;
    let device = plan
        .any_run()
        .context("a sweep needs a preset at least")?
        .compute
        .start()?;
    let interrupted = interruption()?;
    let runner = Runner {
        plan: &plan,
        folder: &arguments.output_dir,
        device,
        memory: arguments.settings.step.memory(device),
        events: arguments.tensorboard.as_deref(),
        interrupted: &interrupted,
    };
    let Some(report) = runner.run()? else {
        tracing::warn!("interrupted; the same command goes on with the sweep");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    println!("{}", report.markdown());
    println!("{}", arguments.output_dir.display());
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn sweep(&self) -> Result<Sweep> {
        let mut sweep = match &self.config {
            Some(path) => Sweep::read(path)?,
            None => Sweep::default(),
        };
        let replace = |list: &mut Vec<u64>, given: &Option<Vec<u64>>| {
            if let Some(given) = given {
                list.clone_from(given);
            }
        };
        replace(&mut sweep.seeds, &self.seeds);
        replace(&mut sweep.choice.seeds, &self.choice_seeds);
        if let Some(presets) = &self.presets {
            sweep.presets.clone_from(presets);
        }
        if let Some(rates) = &self.learning_rates {
            sweep.learning_rates.clone_from(rates);
        }
        sweep.choice.epochs = self.choice_epochs.or(sweep.choice.epochs);
        sweep.choice.hold_out = self.choice_hold_out.or(sweep.choice.hold_out);
        Ok(sweep)
    }
}
