//! Accuracy and loss on images that training hasn't seen.

use model::Preprocessing;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor, no_grad};

use super::TrainingError;
use crate::data::Images;
use crate::network::{Mode, TorchNetwork};

/// How well a network classifies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Fraction of images whose class has the largest logit, 0..1.
    pub top1: f64,
    /// Fraction of images whose class is among the five largest logits, 0..1.
    pub top5: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// How many images.
    pub images: usize,
}

/// Classifies every image, in evaluation mode.
///
/// # Errors
/// [`TrainingError`] where the images don't fit the network or libtorch refuses.
pub fn evaluate(
    network: &TorchNetwork,
    images: &Images,
    preprocessing: &Preprocessing,
    batch_size: usize,
    device: Device,
) -> Result<Evaluation, TrainingError> {
    no_grad(|| {
        let (mut top1, mut top5, mut loss) = (0.0, 0.0, 0.0);
        let indices: Vec<usize> = (0..images.len()).collect();
        for batch in indices.chunks(batch_size.max(1)) {
            let (inputs, labels) = images.batch(batch, preprocessing, device)?;
            let logits = network.forward(&inputs, Mode::Evaluation, &mut ())?;
            loss += logits
                .f_cross_entropy_loss::<&Tensor>(&labels, None, Reduction::Sum, -100, 0.0)?
                .f_double_value(&[])?;
            let (_, best) = logits.f_topk(5.min(logits.size()[1]), 1, true, true)?;
            let hits = best
                .f_eq_tensor(&labels.f_unsqueeze(1)?)?
                .f_to_kind(Kind::Int64)?;
            top1 += hits.f_select(1, 0)?.f_sum(Kind::Int64)?.f_double_value(&[])?;
            top5 += hits.f_sum(Kind::Int64)?.f_double_value(&[])?;
        }
        let count = images.len().max(1) as f64;
        Ok(Evaluation {
            top1: top1 / count,
            top5: top5 / count,
            loss: loss / count,
            images: images.len(),
        })
    })
}
