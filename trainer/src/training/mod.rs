//! The training loop: batches → forward → backward → optimiser → sleep phase, with a checkpoint after every epoch.

mod batch_norm;
mod checkpointing;
mod evaluation;
mod log;
mod loss_scale;
mod optimizer;
mod schedule;
mod sleep;
mod snr;
mod step;

pub use batch_norm::{SingleValue, check_batch_size};
pub use checkpointing::{
    CheckpointWriter, Position, SavedState, TrainingState, open_for_resuming, training_path,
};
pub(crate) use evaluation::Tally;
pub use evaluation::{Evaluation, evaluate};
pub use log::{Log, Memory, Record};
pub use loss_scale::LossScale;
pub use optimizer::{MomentType, Optimizer, OptimizerOptions};
pub use schedule::Schedule;
pub(crate) use sleep::largest_class;
pub use sleep::{
    AntiHebbian, SleepPhase, UnstableSleep, anti_hebbian_iteration, share_anti_hebbian, share_instantly,
    share_with_patches, tile,
};
pub use snr::{interior, layer_snr, weight_snr};
pub use step::TrainingStep;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use model::{CheckpointError, Preprocessing};
use serde::{Deserialize, Serialize};
use tch::{Device, TchError};
use thiserror::Error;

use crate::data::{Augmentation, Batch, DataError, DataSet, Loader, LoaderOptions, Split, epoch_batches};
use crate::engine::cuda_memory;
use crate::memory::ProcessMemory;
use crate::network::{NetworkError, TorchNetwork};
use crate::precision::Precision;
use crate::tensorboard::EventFileError;

/// Everything that decides how a network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingOptions {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Images that are computed at a time at most; `None`: all of a step.
    #[serde(default)]
    pub micro_batch: Option<usize>,
    /// The optimiser's.
    pub optimizer: OptimizerOptions,
    /// How its learning rate falls.
    #[serde(default)]
    pub schedule: Schedule,
    /// The sleep phase runs after the optimiser's step on iterations 0, N, 2N, … of every epoch; `None`: never.
    pub sleep_every: Option<usize>,
    /// What the sleep phase does.
    #[serde(default)]
    pub sleep: SleepPhase,
    /// Decides the initial weights, the order of the images and the noise of the sleep phase.
    pub seed: u64,
    /// Of the factors of products in training steps.
    #[serde(default)]
    pub precision: Precision,
    /// What is done to the training images.
    #[serde(default)]
    pub augmentation: Augmentation,
}

/// Why training ended early.
#[derive(Debug, Error)]
pub enum TrainingError {
    /// The network can't be computed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
    /// A checkpoint can't be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The images can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The log can't be written.
    #[error("can't write the log {}", path.display())]
    Log {
        /// The log's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An event file can't be written.
    #[error(transparent)]
    Events(#[from] EventFileError),
    /// The loss is infinite or not a number.
    #[error(
        "the loss is {loss} {} epoch {epoch} (learning rate {learning_rate}); a lower learning rate may help. The last good \
         checkpoint is {checkpoint}",
        step.map_or_else(|| "on the test images after".to_owned(), |step| format!("at step {step} of"))
    )]
    NonFinite {
        /// What the loss is.
        loss: f64,
        /// Counted from 1.
        epoch: usize,
        /// Counted from 1; `None`: it is that of the test images after the epoch.
        step: Option<usize>,
        /// At that step.
        learning_rate: f64,
        /// The file, or "not written yet".
        checkpoint: String,
    },
}

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished(Evaluation),
    /// It was interrupted and can be resumed.
    Interrupted,
}

/// One training run.
pub struct Trainer<'a> {
    /// Trained in place.
    pub network: &'a TorchNetwork,
    /// Images and labels.
    pub data: &'a DataSet,
    /// Threads that decode and vary images; they don't change the result.
    pub workers: usize,
    /// Corrupt images are left out instead of ending the run.
    pub skip_corrupt: bool,
    /// How images become the network's input.
    pub preprocessing: &'a Preprocessing,
    /// Where to compute.
    pub device: Device,
    /// What decides the result.
    pub options: TrainingOptions,
    /// Activations are computed again in the backward pass instead of being kept.
    pub recompute: bool,
    /// Epochs from one checkpoint to the next; the last epoch always ends with one.
    pub checkpoint_every: usize,
    /// Set by Ctrl-C; training then writes a checkpoint and stops.
    pub interrupted: &'a AtomicBool,
}

impl Trainer<'_> {
    /// Trains from `start` (a fresh optimiser, or a state that was read back) to the last epoch.
    ///
    /// # Errors
    /// [`TrainingError`]; the last checkpoint stays readable whatever happens.
    pub fn run(
        &self,
        start: TrainingState,
        writer: &CheckpointWriter,
        log: &mut Log,
    ) -> Result<Outcome, TrainingError> {
        let TrainingState {
            mut optimizer,
            mut loss_scale,
            position,
        } = start;
        let steps = epoch_batches(
            self.data.train.len(),
            self.options.batch_size,
            self.options.seed,
            0,
        );
        log.begin(position, steps.len())?;
        let mut evaluation = None;
        let (train, test) = (self.train_loader()?, self.test_loader()?);
        for epoch in position.epoch..self.options.epochs {
            let first_step = if epoch == position.epoch { position.step } else { 0 };
            let clock = Instant::now();
            let stopped = self.train_epoch(
                &train,
                (epoch, first_step),
                (&mut optimizer, &mut loss_scale),
                writer,
                log,
            )?;
            let elapsed = clock.elapsed();
            let result = match stopped {
                Some(_) => None,
                None => self.evaluate(&test)?,
            };
            let Some(result) = result else {
                // All steps of the epoch are made where only its evaluation was interrupted.
                let position = stopped.unwrap_or(Position {
                    epoch,
                    step: steps.len(),
                });
                if !self.network.store().is_finite()? {
                    // The loss that would have shown it isn't computed any more.
                    return Err(TrainingError::NonFinite {
                        loss: f64::NAN,
                        epoch: epoch + 1,
                        step: stopped.map(|stopped| stopped.step + 1),
                        learning_rate: self.learning_rate(epoch),
                        checkpoint: writer.last_good(),
                    });
                }
                // Nobody has evaluated these weights; the last evaluation is of those before this epoch.
                writer.write(self.network, (&optimizer, loss_scale), position, None)?;
                return Ok(Outcome::Interrupted);
            };
            if !result.loss.is_finite() {
                // Steps are checked before they are made, so that only the evaluation shows what the last one did.
                return Err(TrainingError::NonFinite {
                    loss: result.loss,
                    epoch: epoch + 1,
                    step: None,
                    learning_rate: self.learning_rate(epoch),
                    checkpoint: writer.last_good(),
                });
            }
            let done = first_step * self.options.batch_size;
            let images = self.data.train.len().saturating_sub(done);
            let images_per_second = images as f64 / elapsed.as_secs_f64();
            tracing::info!(
                epoch = epoch + 1,
                top1 = format!("{:.2} %", result.top1 * 100.0),
                loss = format!("{:.4}", result.loss),
                "test images"
            );
            // Before the checkpoint: where a run goes on from one, the log has all that led to it.
            log.write(&Record::Epoch {
                epoch: epoch + 1,
                test: result,
                learning_rate: self.learning_rate(epoch),
                images_per_second,
                weight_snr: weight_snr(self.network)?,
                memory: self.memory(),
            })?;
            let next = Position {
                epoch: epoch + 1,
                step: 0,
            };
            let last = next.epoch == self.options.epochs;
            if last || next.epoch.is_multiple_of(self.checkpoint_every.max(1)) {
                writer.write(self.network, (&optimizer, loss_scale), next, Some(&result))?;
            }
            evaluation = Some(result);
        }
        // Resumed after the last epoch.
        let evaluation = match evaluation {
            None => self.evaluate(&test)?,
            evaluation => evaluation,
        };
        train.tell_corrupt("training");
        test.tell_corrupt("test");
        Ok(evaluation.map_or(Outcome::Interrupted, Outcome::Finished))
    }

    fn memory(&self) -> Memory {
        let ProcessMemory { resident, peak } = ProcessMemory::now();
        let device = match self.device {
            Device::Cuda(index) => cuda_memory(index).ok().map(|(free, total)| total - free),
            _ => None,
        };
        Memory {
            resident,
            peak,
            device,
        }
    }

    fn train_loader(&self) -> Result<Loader, DataError> {
        self.loader(&self.data.train, self.options.augmentation)
    }

    fn test_loader(&self) -> Result<Loader, DataError> {
        self.loader(&self.data.test, Augmentation::None)
    }

    fn loader(&self, split: &Split, augmentation: Augmentation) -> Result<Loader, DataError> {
        let options = LoaderOptions {
            augmentation,
            seed: self.options.seed,
            workers: self.workers,
            skip_corrupt: self.skip_corrupt,
        };
        let input = self.network.network().input;
        Loader::new(split, self.preprocessing, input, self.device, options)
    }

    fn evaluate(&self, loader: &Loader) -> Result<Option<Evaluation>, TrainingError> {
        let batch_size = self.options.micro_batch.unwrap_or(self.options.batch_size);
        evaluate(self.network, loader, batch_size, self.interrupted)
    }

    /// Returns where it stopped if it was interrupted.
    fn train_epoch(
        &self,
        loader: &Loader,
        (epoch, first_step): (usize, usize),
        (optimizer, loss_scale): (&mut Optimizer, &mut Option<LossScale>),
        writer: &CheckpointWriter,
        log: &mut Log,
    ) -> Result<Option<Position>, TrainingError> {
        let batches = epoch_batches(
            self.data.train.len(),
            self.options.batch_size,
            self.options.seed,
            epoch,
        );
        let learning_rate = self.learning_rate(epoch);
        optimizer.set_learning_rate(learning_rate);
        let bar = self.progress_bar(epoch, batches.len());
        bar.set_position(first_step as u64);
        // Steps that were made before say nothing about how long those that are left will take.
        bar.reset_eta();
        let mut clock = Instant::now();
        let first = first_step.min(batches.len());
        for (step, batch) in (first..).zip(loader.load(epoch, &batches[first..])) {
            if self.interrupted.load(Ordering::Relaxed) {
                bar.abandon_with_message("interrupted");
                return Ok(Some(Position { epoch, step }));
            }
            let batch = batch?;
            // BatchNorm can't train on what corrupt images leave of such a batch.
            if batch.indices.len() < batch.skipped.min(1) + 1 {
                bar.inc(1);
                continue;
            }
            let Evaluation { loss, top1, top5, .. } = self.step(&batch, optimizer, loss_scale.as_mut())?;
            if !loss.is_finite() {
                bar.abandon_with_message("the loss is not finite");
                let (epoch, step) = (epoch + 1, Some(step + 1));
                let checkpoint = writer.last_good();
                return Err(TrainingError::NonFinite {
                    loss,
                    epoch,
                    step,
                    learning_rate,
                    checkpoint,
                });
            }
            if self.options.sleep_every.is_some_and(|every| step % every == 0) {
                let position = Position { epoch, step };
                self.options
                    .sleep
                    .run(self.network, self.options.seed, position)?;
            }
            bar.inc(1);
            bar.set_message(format!("loss {loss:.4}, top-1 {:.0} %", top1 * 100.0));
            let images_per_second = batch.indices.len() as f64 / clock.elapsed().as_secs_f64();
            clock = Instant::now();
            log.write(&Record::Step {
                epoch: epoch + 1,
                step: step + 1,
                loss,
                top1,
                top5,
                learning_rate,
                loss_scale: loss_scale.map(|scale| scale.factor()),
                images_per_second,
            })?;
        }
        bar.finish_and_clear();
        Ok(None)
    }

    fn step(
        &self,
        batch: &Batch,
        optimizer: &mut Optimizer,
        loss_scale: Option<&mut LossScale>,
    ) -> Result<Evaluation, TrainingError> {
        let images = batch.indices.len();
        let parts = parts(images, self.options.micro_batch.unwrap_or(images));
        let parts = parts.into_iter().map(|part| {
            let (start, length) = (part.start as i64, part.len() as i64);
            Ok((
                batch.images.f_narrow(0, start, length)?,
                batch.labels.f_narrow(0, start, length)?,
            ))
        });
        let step = TrainingStep {
            network: self.network,
            recompute: self.recompute,
        };
        step.run(parts, images, optimizer, loss_scale)
    }

    fn learning_rate(&self, epoch: usize) -> f64 {
        let factor = self.options.schedule.factor(epoch, self.options.epochs);
        self.options.optimizer.learning_rate * factor
    }

    fn progress_bar(&self, epoch: usize, steps: usize) -> ProgressBar {
        let template = "{prefix} {wide_bar} {pos}/{len} steps, {per_sec}, {eta} left, {msg}";
        let bar = ProgressBar::new(steps as u64);
        // An invalid template leaves indicatif's own style, which shows the same numbers.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_prefix(format!("epoch {}/{}", epoch + 1, self.options.epochs))
    }
}

/// A batch of so many images in as few parts as their largest size allows, which differ by one image at most. BatchNorm can't
/// train on one image where a layer has one position, so that a part has two at least, if need be one more than allowed.
fn parts(images: usize, largest: usize) -> Vec<Range<usize>> {
    let count = images.div_ceil(largest.max(1)).min(images / 2).max(1);
    let bound = |part: usize| part * images / count;
    (0..count).map(|part| bound(part)..bound(part + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_batch_are_alike() {
        let sizes = |largest| parts(17, largest).iter().map(Range::len).collect::<Vec<_>>();
        assert_eq!(sizes(17), [17]);
        assert_eq!(sizes(16), [8, 9]);
        assert_eq!(sizes(6), [5, 6, 6]);
        assert_eq!(sizes(1), [2, 2, 2, 2, 2, 2, 2, 3]);
        let lengths = |images, largest| parts(images, largest).iter().map(Range::len).collect::<Vec<_>>();
        assert_eq!((lengths(3, 2), lengths(1, 1)), (vec![3], vec![1]));
        assert_eq!(
            parts(17, 6).into_iter().flatten().collect::<Vec<_>>(),
            (0..17).collect::<Vec<_>>()
        );
    }
}
