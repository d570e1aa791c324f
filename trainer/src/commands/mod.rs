//! The program's commands, one a file: arguments and what is done with them.

pub(crate) mod eval;
pub(crate) mod import;
pub(crate) mod record;
pub(crate) mod stimuli;
pub(crate) mod train;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use model::Checkpoint;
use tch::Device;

use crate::data::{self, Dataset};
use crate::network::TorchNetwork;

/// Opens a checkpoint, checks its contents and builds its network.
fn load_network(path: &Path, device: Device) -> Result<(Checkpoint, TorchNetwork)> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.verify()?;
    let network = TorchNetwork::load(&checkpoint, device)?;
    Ok((checkpoint, network))
}

/// Loads a data set and checks that its images fit the checkpoint's network.
fn load_data(folder: Option<&Path>, checkpoint: &Checkpoint) -> Result<Dataset> {
    let data = data::load(folder).context("can't load the data set")?;
    let (images, input) = (data.test.shape(), checkpoint.network().input);
    ensure!(
        images == input,
        "the data set's images are {}x{} with {} channels, the network of {} takes {}x{} with {}; give --data with the \
         images that it was trained on",
        images.height,
        images.width,
        images.channels,
        checkpoint.path().display(),
        input.height,
        input.width,
        input.channels,
    );
    Ok(data)
}
