//! The program's commands, one a file: arguments and what is done with them.

mod checkpoint_arguments;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod dynamics;
pub(crate) mod eval;
pub(crate) mod import;
pub(crate) mod init;
mod network_arguments;
pub(crate) mod plan;
pub(crate) mod presets;
pub(crate) mod probe;
mod recipe_arguments;
pub(crate) mod record;
mod sleep_arguments;
mod step_arguments;
pub(crate) mod stimuli;
pub(crate) mod sweep;
pub(crate) mod train;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use model::{Checkpoint, InputShape};
use tch::Device;

use crate::data::{DataSet, NativeSize};
use crate::network::TorchNetwork;

/// Opens a checkpoint, checks its contents and builds its network.
fn load_network(path: &Path, device: Device) -> Result<(Checkpoint, TorchNetwork)> {
    let checkpoint = Checkpoint::open(path)?;
    let network = build_network(&checkpoint, device)?;
    Ok((checkpoint, network))
}

/// Checks a checkpoint's contents and builds its network.
fn build_network(checkpoint: &Checkpoint, device: Device) -> Result<TorchNetwork> {
    checkpoint.verify()?;
    Ok(TorchNetwork::load(checkpoint, device)?)
}

/// Loads a data set and checks that its classes fit the checkpoint's network.
fn load_data(folder: Option<&Path>, checkpoint: &Checkpoint) -> Result<DataSet> {
    let data = load_images(folder, checkpoint)?;
    let classes = checkpoint.network().readout.classes;
    ensure!(
        data.class_names.len() <= classes,
        "the data set has {} classes, the network of {} tells {classes} apart; give --data with images like those that it \
         was trained on",
        data.class_names.len(),
        checkpoint.path().display(),
    );
    Ok(data)
}

/// Loads a data set, whatever its classes. Images of another size than the network's input are preprocessed as the checkpoint
/// says.
fn load_images(folder: Option<&Path>, checkpoint: &Checkpoint) -> Result<DataSet> {
    let data = DataSet::open(folder).context("can't open the data set")?;
    let input = checkpoint.network().input;
    match data.test.native() {
        NativeSize::Uniform(images) if images == input => {}
        NativeSize::Uniform(images) => {
            tracing::info!("{}; they are preprocessed to {}", pixels(images), pixels(input));
        }
        NativeSize::Varied => {
            tracing::info!("images of any size; they are preprocessed to {}", pixels(input));
        }
    }
    Ok(data)
}

/// An image's shape in words.
fn pixels(shape: InputShape) -> String {
    let InputShape {
        channels,
        height,
        width,
    } = shape;
    format!("images of {height}x{width} pixels and {channels} channels")
}

/// Replaces a setting where an option is given.
fn override_with<T: Clone>(setting: &mut T, given: Option<&T>) {
    if let Some(given) = given {
        setting.clone_from(given);
    }
}
