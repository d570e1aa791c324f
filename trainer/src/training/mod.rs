//! The training loop: batches → forward → backward → AdamW → sleep phase, with a checkpoint after every epoch.

mod adamw;
mod checkpointing;
mod evaluation;
mod log;
mod sleep;
mod snr;

pub use adamw::{AdamW, AdamWOptions};
pub use checkpointing::{CheckpointWriter, Position, TrainingState, open_for_resuming, training_path};
pub use evaluation::{Evaluation, evaluate};
pub use log::{Log, Record};
pub use sleep::{share_instantly, sleep};
pub use snr::{interior, layer_snr, weight_snr};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use model::{CheckpointError, Preprocessing};
use serde::{Deserialize, Serialize};
use tch::{Device, TchError};
use thiserror::Error;

use crate::data::{DataError, Dataset, epoch_batches};
use crate::network::{Mode, NetworkError, TorchNetwork};

/// Everything that decides how a network is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingOptions {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// AdamW's.
    pub optimizer: AdamWOptions,
    /// The sleep phase runs after the optimiser's step on iterations 0, N, 2N, … of every epoch; `None`: never.
    pub sleep_every: Option<usize>,
    /// Decides the initial weights and the order of the images.
    pub seed: u64,
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
    /// The loss is infinite or not a number.
    #[error(
        "the loss is {loss} at step {step} of epoch {epoch} (learning rate {learning_rate}); a lower learning rate may \
         help. The last good checkpoint is {checkpoint}"
    )]
    NonFinite {
        /// What the loss is.
        loss: f64,
        /// Counted from 1.
        epoch: usize,
        /// Counted from 1.
        step: usize,
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
    pub data: &'a Dataset,
    /// How images become the network's input.
    pub preprocessing: &'a Preprocessing,
    /// Where to compute.
    pub device: Device,
    /// What decides the result.
    pub options: TrainingOptions,
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
            position,
        } = start;
        let mut evaluation = None;
        for epoch in position.epoch..self.options.epochs {
            let first_step = if epoch == position.epoch { position.step } else { 0 };
            let reached = self.train_epoch((epoch, first_step), &mut optimizer, writer, log)?;
            if let Some(position) = reached {
                writer.write(self.network, &optimizer, position, evaluation.as_ref())?;
                return Ok(Outcome::Interrupted);
            }
            let result = evaluate(
                self.network,
                &self.data.test,
                self.preprocessing,
                self.options.batch_size,
                self.device,
            )?;
            let next = Position {
                epoch: epoch + 1,
                step: 0,
            };
            writer.write(self.network, &optimizer, next, Some(&result))?;
            let snr = weight_snr(self.network)?;
            tracing::info!(
                epoch = epoch + 1,
                top1 = format!("{:.2} %", result.top1 * 100.0),
                loss = format!("{:.4}", result.loss),
                "test images"
            );
            log.write(&Record::Epoch {
                epoch: epoch + 1,
                test: result,
                weight_snr: snr,
            })?;
            evaluation = Some(result);
        }
        match evaluation {
            Some(evaluation) => Ok(Outcome::Finished(evaluation)),
            // Resumed after the last epoch.
            None => Ok(Outcome::Finished(evaluate(
                self.network,
                &self.data.test,
                self.preprocessing,
                self.options.batch_size,
                self.device,
            )?)),
        }
    }

    /// Returns where it stopped if it was interrupted.
    fn train_epoch(
        &self,
        (epoch, first_step): (usize, usize),
        optimizer: &mut AdamW,
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
        let mut clock = Instant::now();
        for (step, batch) in batches.iter().enumerate().skip(first_step) {
            if self.interrupted.load(Ordering::Relaxed) {
                bar.abandon_with_message("interrupted");
                return Ok(Some(Position { epoch, step }));
            }
            let loss = self.step(batch, optimizer)?;
            if !loss.is_finite() {
                bar.abandon_with_message("the loss is not finite");
                let (epoch, step) = (epoch + 1, step + 1);
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
                sleep(self.network)?;
            }
            bar.inc(1);
            bar.set_message(format!("loss {loss:.4}"));
            let images_per_second = batch.len() as f64 / clock.elapsed().as_secs_f64();
            clock = Instant::now();
            log.write(&Record::Step {
                epoch: epoch + 1,
                step: step + 1,
                loss,
                learning_rate,
                images_per_second,
            })?;
        }
        bar.finish_and_clear();
        Ok(None)
    }

    fn step(&self, batch: &[usize], optimizer: &mut AdamW) -> Result<f64, TrainingError> {
        let (images, labels) = self.data.train.batch(batch, self.preprocessing, self.device)?;
        let logits = self.network.forward(&images, Mode::Training, &mut ())?;
        let loss =
            logits.f_cross_entropy_loss::<&tch::Tensor>(&labels, None, tch::Reduction::Mean, -100, 0.0)?;
        let value = loss.f_double_value(&[])?;
        if value.is_finite() {
            optimizer.zero_gradients();
            loss.f_backward()?;
            optimizer.step()?;
        }
        Ok(value)
    }

    /// The paper's schedule: times 0.25 after a half and after three quarters of the epochs.
    fn learning_rate(&self, epoch: usize) -> f64 {
        let drops = [
            self.options.epochs.div_ceil(2),
            (3 * self.options.epochs).div_ceil(4),
        ];
        let passed = drops.iter().filter(|&&drop| epoch >= drop && drop > 0).count();
        self.options.optimizer.learning_rate * 0.25_f64.powi(passed as i32)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;
    use crate::network::Initialisation;
    use model::{Architecture, Connectivity, InputShape};

    #[test]
    fn the_learning_rate_drops_after_a_half_and_three_quarters() {
        let input = InputShape {
            channels: 1,
            height: 4,
            width: 4,
        };
        let mut architecture = Architecture::resnet_cifar(1, input, 2, 2, Connectivity::Convolutional);
        architecture.blocks = vec![1];
        let network = architecture.network().unwrap();
        let network = TorchNetwork::initialise(network, Initialisation::Random, Device::Cpu).unwrap();
        let images = || Images::new(vec![0; 16], vec![0], (1, 4, 4)).unwrap();
        let data = Dataset {
            train: images(),
            test: images(),
            class_names: vec![],
            source: String::new(),
        };
        let preprocessing = Preprocessing::unit_range(input);
        let optimizer = AdamWOptions {
            learning_rate: 1.0,
            ..AdamWOptions::default()
        };
        let options = TrainingOptions {
            epochs: 200,
            batch_size: 1,
            optimizer,
            sleep_every: None,
            seed: 0,
        };
        let interrupted = AtomicBool::new(false);
        let (network, data, preprocessing, interrupted) = (&network, &data, &preprocessing, &interrupted);
        let trainer = Trainer {
            network,
            data,
            preprocessing,
            device: Device::Cpu,
            options,
            interrupted,
        };
        let rates: Vec<_> = [0, 99, 100, 149, 150, 199]
            .iter()
            .map(|&epoch| trainer.learning_rate(epoch))
            .collect();
        assert_eq!(rates, [1.0, 1.0, 0.25, 0.25, 0.0625, 0.0625]);
    }
}
