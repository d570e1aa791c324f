//! Accuracy and loss on images that training hasn't seen.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, TchError, Tensor, no_grad};

use super::TrainingError;
use crate::data::{Loader, in_order};
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

/// Classifies every image that a loader has, in evaluation mode; corrupt images that it leaves out don't count. Nothing
/// comes of it where it was interrupted.
///
/// # Errors
/// [`TrainingError`] where the images don't fit the network or libtorch refuses.
pub fn evaluate(
    network: &TorchNetwork,
    loader: &Loader,
    batch_size: usize,
    interrupted: &AtomicBool,
) -> Result<Option<Evaluation>, TrainingError> {
    no_grad(|| {
        let mut tally = Tally::default();
        for batch in loader.load(0, &in_order(loader.len(), batch_size)) {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            if batch.indices.is_empty() {
                continue;
            }
            let logits = network.forward(&batch.images, Mode::Evaluation, &mut ())?;
            tally.add(&logits, &batch.labels)?;
        }
        Ok(Some(tally.evaluation()))
    })
}

/// Counts hits and adds losses up, batch by batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    top1: f64,
    top5: f64,
    loss: f64,
    images: usize,
}

impl Tally {
    /// Adds a batch: logits `[N, classes]`, classes `[N]`.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn add(&mut self, logits: &Tensor, labels: &Tensor) -> Result<(), TchError> {
        self.loss += logits
            .f_cross_entropy_loss::<&Tensor>(labels, None, Reduction::Sum, -100, 0.0)?
            .f_double_value(&[])?;
        self.add_hits(logits, labels)
    }

    /// Adds a batch as [`Self::add`] does, all but its loss.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn add_hits(&mut self, logits: &Tensor, labels: &Tensor) -> Result<(), TchError> {
        let (_, best) = logits.f_topk(5.min(logits.size()[1]), 1, true, true)?;
        let hits = best
            .f_eq_tensor(&labels.f_unsqueeze(1)?)?
            .f_to_kind(Kind::Int64)?;
        self.top1 += hits.f_select(1, 0)?.f_sum(Kind::Int64)?.f_double_value(&[])?;
        self.top5 += hits.f_sum(Kind::Int64)?.f_double_value(&[])?;
        self.images += labels.size1()? as usize;
        Ok(())
    }

    /// Of all batches.
    pub(crate) fn evaluation(self) -> Evaluation {
        let count = self.images.max(1) as f64;
        Evaluation {
            top1: self.top1 / count,
            top5: self.top5 / count,
            loss: self.loss / count,
            images: self.images,
        }
    }
}
