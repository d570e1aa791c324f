//! `trainer init`.
#![expect(clippy::print_stdout, reason = "prints what was written")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use model::{CheckpointHeader, checkpoint};
use serde_json::json;

use super::checkpoint_arguments::{HeaderArguments, check_extension, describe};
use super::network_arguments::{InputArguments, NetworkArguments};
use super::recipe_arguments::RecipeArguments;
use crate::cli::ComputeArguments;
use crate::network::TorchNetwork;
use crate::run::Run;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint to write: NAME.safetensors.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    header: HeaderArguments,
    /// Decides the weights; they are those that `trainer train` starts from with the same seed [default: that of --config,
    /// or 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    compute: ComputeArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    check_extension(&arguments.output)?;
    let mut run = arguments.recipe.run()?;
    arguments.network.apply(&mut run.network);
    run.check()?;
    ensure!(
        run.network.start_from.is_none(),
        "`network.start_from` names weights to begin with, and trainer init draws them; `trainer train --epochs 0` writes a \
         network with those"
    );
    let header = arguments.header(&run)?;
    // Drawing gigabytes of weights takes a while: what can't be written is refused before.
    header.check()?;
    let network = header.architecture.network()?;
    let device = arguments.compute.apply()?;
    tch::manual_seed(i64::from_ne_bytes(arguments.seed(&run).to_ne_bytes()));
    let network = TorchNetwork::initialise(network, run.network.initialisation(), device)?;
    let digest = checkpoint::write(&arguments.output, &header, &network.store().stored())?;
    println!("{}", describe(&arguments.output, &header.architecture, &digest));
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn seed(&self, run: &Run) -> u64 {
        self.seed.unwrap_or(run.training.seed)
    }

    fn header(&self, run: &Run) -> Result<CheckpointHeader> {
        let input = self.input.shape(&run.data);
        let program = concat!("trainer ", env!("CARGO_PKG_VERSION"));
        Ok(CheckpointHeader {
            architecture: run.network.architecture(input, self.input.classes),
            preprocessing: self.header.preprocessing.of(input),
            class_names: self.header.class_names()?,
            provenance: BTreeMap::from([
                ("program".to_owned(), json!(program)),
                (
                    "initialisation".to_owned(),
                    json!(run.network.initialisation_name()),
                ),
                ("seed".to_owned(), json!(self.seed(run))),
                ("trained".to_owned(), json!(false)),
            ]),
        })
    }
}
