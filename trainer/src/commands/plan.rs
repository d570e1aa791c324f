//! `trainer plan`.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tch::Device;

use super::network_arguments::{InputArguments, NetworkArguments};
use super::recipe_arguments::RecipeArguments;
use super::sleep_arguments::SleepArguments;
use super::step_arguments::StepArguments;
use crate::device::{DeviceChoice, DeviceError};
use crate::plan::Plan;
use crate::run::execution::{Memory, check};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    input: InputArguments,
    #[command(flatten)]
    step: StepArguments,
    #[command(flatten)]
    sleep: SleepArguments,
    /// Print a JSON object, sizes in bytes.
    #[arg(long)]
    json: bool,
    /// auto, cpu, cuda or cuda:N. With --memory-limit a GPU may be planned for that this machine doesn't have.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let device = arguments.device()?;
    let mut run = arguments.recipe.run()?;
    arguments.network.apply(&mut run.network);
    arguments.sleep.apply(&mut run.sleep);
    arguments.step.apply(&mut run);
    run.check()?;
    let input = arguments.input.shape(&run.data);
    let network = run
        .network
        .architecture(input, arguments.input.classes)
        .network()?;
    let setup = run.setup(device);
    // What `trainer train` refuses isn't planned.
    check(&network, &run.options(device))?;
    let plan = Plan::new(&network, &setup);
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&plan).context("can't write the plan")?
        );
    } else {
        print!("{plan}");
    }
    // The table is the answer; that it doesn't fit is said as `trainer train` would.
    if let Some(Memory { available, limited }) = arguments.step.memory(device) {
        Plan::fitting(&network, &setup, available, limited)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn device(&self) -> std::result::Result<Device, DeviceError> {
        match (self.device, self.device.resolve()) {
            (DeviceChoice::Cuda(index), Err(_)) if self.step.has_memory_limit() => Ok(Device::Cuda(index)),
            (_, resolved) => resolved,
        }
    }
}
