//! Linear probes: how well a linear readout of one layer's frozen features tells the classes apart.

mod features;
mod readout;

pub use features::Features;

use indicatif::{ProgressBar, ProgressStyle};
use model::Preprocessing;
use serde::Serialize;
use tch::{Device, TchError};
use thiserror::Error;

use crate::data::{DataError, DataSet, Loader, LoaderOptions, epoch_batches};
use crate::network::{NetworkError, TorchNetwork};
use crate::training::{Evaluation, Schedule, Tally};
use readout::Readout;

/// What decides a probe's result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProbeOptions {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step; the readout has no BatchNorm, so that all of them may be one step.
    pub batch_size: usize,
    /// AdamW's; it drops as in the training of networks.
    pub learning_rate: f64,
    /// AdamW's.
    pub weight_decay: f64,
    /// Decides the order of the images. The readout's weights begin at 0.
    pub seed: u64,
    /// Bytes that the features of training images may take; those of other images are computed whenever they are needed.
    pub cache: u64,
}

/// What a layer's features are good for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probe {
    /// The layer's name.
    pub layer: String,
    /// Shape of one image's activations.
    pub shape: Vec<usize>,
    /// How many numbers that is.
    pub features: usize,
    /// Training images whose features were computed once.
    pub cached_images: usize,
    /// On the training images.
    pub train: Evaluation,
    /// On the test images.
    pub test: Evaluation,
}

/// Why a layer can't be probed.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// There is no such layer, or the network can't be computed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The images can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
    /// The loss is infinite or not a number.
    #[error(
        "the readout's loss is {loss} in epoch {epoch} (learning rate {learning_rate}); a lower learning rate may help"
    )]
    NonFinite {
        /// What the loss is.
        loss: f64,
        /// Counted from 1.
        epoch: usize,
        /// At that step.
        learning_rate: f64,
    },
}

/// Trains a readout of a layer's features, which stay as they are, and tests it. It tells the data set's classes apart, which
/// needn't be the network's. The same options and the same number of
/// threads give the same result.
///
/// # Errors
/// [`ProbeError`], with what would be right.
pub fn probe(
    network: &TorchNetwork,
    preprocessing: &Preprocessing,
    data: &DataSet,
    layer: &str,
    options: &ProbeOptions,
    loading: LoaderOptions,
    device: Device,
) -> Result<Probe, ProbeError> {
    let layer = network.layer(layer)?;
    let count: usize = layer.shape.iter().product();
    let loader = |split| Loader::new(split, preprocessing, network.network().input, device, loading);
    let (train, test) = (loader(&data.train)?, loader(&data.test)?);
    let features = |loader| Features::new(network, loader, &layer.name, device);
    let train_features = features(&train).cached(options.cache)?;
    let bar = progress_bar(&layer.name, options.epochs);
    let mut readout = Readout::new(count, data.classes(), options, device)?;
    for epoch in 0..options.epochs {
        let learning_rate = options.learning_rate * Schedule::Steps.factor(epoch, options.epochs);
        readout.set_learning_rate(learning_rate);
        let batches = epoch_batches(data.train.len(), options.batch_size, options.seed, epoch);
        let (mut total, mut steps) = (0.0, 0_usize);
        for batch in &batches {
            let Some((features, labels)) = train_features.batch(batch)? else {
                continue;
            };
            let loss = readout.step(&features, &labels)?;
            if !loss.is_finite() {
                let epoch = epoch + 1;
                return Err(ProbeError::NonFinite {
                    loss,
                    epoch,
                    learning_rate,
                });
            }
            total += loss;
            steps += 1;
        }
        bar.inc(1);
        bar.set_message(format!("loss {:.4}", total / steps.max(1) as f64));
    }
    bar.finish_and_clear();
    let result = Probe {
        cached_images: train_features.cached_images(),
        train: evaluate(&readout, &train_features, options.batch_size)?,
        test: evaluate(&readout, &features(&test), options.batch_size)?,
        layer: layer.name.clone(),
        features: count,
        shape: layer.shape.clone(),
    };
    train.tell_corrupt("training");
    test.tell_corrupt("test");
    Ok(result)
}

fn evaluate(readout: &Readout, features: &Features<'_>, batch_size: usize) -> Result<Evaluation, ProbeError> {
    let mut tally = Tally::default();
    let indices: Vec<usize> = (0..features.len()).collect();
    for batch in indices.chunks(batch_size.max(1)) {
        if let Some((features, labels)) = features.batch(batch)? {
            tally.add(&readout.logits(&features)?, &labels)?;
        }
    }
    Ok(tally.evaluation())
}

fn progress_bar(layer: &str, epochs: usize) -> ProgressBar {
    let bar = ProgressBar::new(epochs as u64);
    // An invalid template leaves indicatif's own style, which shows the same numbers.
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} epochs, {per_sec}, {eta} left, {msg}")
    {
        bar.set_style(style);
    }
    bar.with_prefix(layer.to_owned())
}
