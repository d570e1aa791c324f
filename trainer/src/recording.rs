//! Records activations: what every layer of a network computes for some images, for an exporter to be checked against.

use std::path::Path;

use model::{CheckpointError, Recording};
use tch::{TchError, Tensor, no_grad};

use crate::network::{Activation, Mode, NetworkError, StoredTensor, TorchNetwork};

/// Every layer's activations for a batch of images, in evaluation mode.
///
/// `images` is `[N, C, H, W]`, preprocessed; each activation is `[N, C, H, W]` (`fc` `[N, classes]`).
///
/// # Errors
/// [`NetworkError`] where the images don't fit or libtorch refuses.
pub fn activations(network: &TorchNetwork, images: &Tensor) -> Result<Vec<(String, Tensor)>, NetworkError> {
    let mut recorded = Vec::new();
    let _logits = no_grad(|| {
        let mut observer = |name: &str, activation: &Activation| -> Result<(), TchError> {
            recorded.push((name.to_owned(), activation.channels_first()?.f_contiguous()?));
            Ok(())
        };
        network.forward(images, Mode::Evaluation, &mut observer)
    })?;
    Ok(recorded)
}

/// Writes the activations of `images` to a recording.
///
/// # Errors
/// As [`activations`], and [`CheckpointError`] where the file can't be written.
pub fn record(
    network: &TorchNetwork,
    checkpoint_digest: &str,
    images: &Tensor,
    output: &Path,
) -> Result<(), NetworkError> {
    let mut tensors = vec![(model::recording::INPUT.to_owned(), images.shallow_clone())];
    tensors.extend(activations(network, images)?);
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), StoredTensor::new(tensor)))
        .collect();
    Recording::write(output, checkpoint_digest, &stored).map_err(CheckpointError::into)
}
