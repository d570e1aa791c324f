//! Checkpoints of a training run: `NAME.safetensors` for everyone, `NAME.training.safetensors` to resume from.
//!
//! Both files are written and synced under temporary names before either is renamed, the training state first. Killed
//! between the two renames, a run finds the newer checkpoint under its temporary name and finishes the job.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use model::checkpoint::{PendingFile, TensorFile, TensorView, open_tensors, write_pending, write_tensors};
use model::{Checkpoint, CheckpointError, CheckpointHeader};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Tensor, no_grad};

use super::optimizer::Optimizer;
use super::{Evaluation, LossScale, TrainingError, TrainingOptions};
use crate::network::{StoredTensor, TorchNetwork};
use crate::precision::Precision;

const METADATA_KEY: &str = "ventral-training";
const FORMAT_VERSION: u32 = 1;

/// How far training has come; it goes on with this step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Counted from 0.
    pub epoch: usize,
    /// Counted from 0 in every epoch.
    pub step: usize,
}

/// What training goes on with.
#[derive(Debug)]
pub struct TrainingState {
    /// With its moments.
    pub optimizer: Optimizer,
    /// Under float16.
    pub loss_scale: Option<LossScale>,
    /// The next step.
    pub position: Position,
}

/// Writes a run's checkpoints.
#[derive(Debug)]
pub struct CheckpointWriter {
    path: PathBuf,
    header: CheckpointHeader,
    options: TrainingOptions,
    last: RefCell<Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    format_version: u32,
    checkpoint_digest: String,
    options: TrainingOptions,
    position: Position,
    optimizer_steps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<LossScale>,
}

impl CheckpointWriter {
    /// Checkpoints will be written to `path`; `header` describes the network and where it comes from.
    pub fn new(path: &Path, header: CheckpointHeader, options: TrainingOptions) -> Self {
        Self {
            path: path.into(),
            header,
            options,
            last: RefCell::new(None),
        }
    }

    /// For a run that goes on from the checkpoint at its path.
    #[must_use]
    pub fn resuming(self) -> Self {
        let path = self.path.display().to_string();
        Self {
            last: RefCell::new(Some(path)),
            ..self
        }
    }

    /// The file of the last checkpoint that this run wrote or went on from, for error messages.
    pub fn last_good(&self) -> String {
        self.last
            .borrow()
            .clone()
            .unwrap_or_else(|| "not written yet".into())
    }

    /// Writes checkpoint and training state.
    ///
    /// # Errors
    /// [`CheckpointError`]; the files are then what they were before.
    pub fn write(
        &self,
        network: &TorchNetwork,
        (optimizer, loss_scale): (&Optimizer, Option<LossScale>),
        position: Position,
        evaluation: Option<&Evaluation>,
    ) -> Result<(), CheckpointError> {
        let mut header = self.header.clone();
        header.provenance.insert("trained".into(), json!(position));
        if let Some(evaluation) = evaluation {
            header.provenance.insert("test".into(), json!(evaluation));
        }
        let (digest, checkpoint) = write_pending(&self.path, &header, &network.store().stored())?;
        let metadata = Metadata {
            format_version: FORMAT_VERSION,
            checkpoint_digest: digest,
            options: self.options,
            position,
            optimizer_steps: optimizer.steps(),
            loss_scale,
        };
        let json =
            serde_json::to_string(&metadata).map_err(|error| CheckpointError::Header(error.to_string()))?;
        let state = write_tensors(
            &training_path(&self.path),
            (METADATA_KEY, json),
            &stored_moments(optimizer),
        )?;
        state.publish()?;
        checkpoint.publish()?;
        *self.last.borrow_mut() = Some(self.path.display().to_string());
        Ok(())
    }
}

impl TrainingState {
    /// The state of a run that hasn't begun.
    ///
    /// # Errors
    /// [`TrainingError::Torch`] where memory doesn't suffice.
    pub fn fresh(network: &TorchNetwork, options: &TrainingOptions) -> Result<Self, TrainingError> {
        let optimizer = Optimizer::new(network.store(), options.optimizer)?;
        Ok(Self {
            optimizer,
            loss_scale: (options.precision == Precision::Fp16).then(LossScale::default),
            position: Position::default(),
        })
    }

    /// Reads the state beside a checkpoint into an optimiser for `network`, which must have been loaded from the
    /// checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`] where the state is missing or belongs to another checkpoint or other options.
    pub fn load(
        path: &Path,
        checkpoint: &Checkpoint,
        network: &TorchNetwork,
        options: &TrainingOptions,
    ) -> Result<Self, TrainingError> {
        let path = training_path(path);
        let metadata = read_metadata(&path)?;
        let differs = |message: String| at(&path, CheckpointError::Header(message));
        if metadata.checkpoint_digest != checkpoint.digest() {
            let message = format!(
                "this training state belongs to checkpoint {}, not to {}",
                metadata.checkpoint_digest,
                checkpoint.digest()
            );
            return Err(differs(message).into());
        }
        if metadata.options != *options {
            let message = format!(
                "the run was started with {:?}, now it is {options:?}; resume with the same options",
                metadata.options
            );
            return Err(differs(message).into());
        }
        let tensors = open_tensors(&path)?;
        let mut optimizer = Optimizer::new(network.store(), options.optimizer)?;
        for (name, moment) in optimizer.state() {
            let view = tensors.tensor(&name)?;
            let size = moment.size();
            let width = options.optimizer.moments.size();
            if view.bytes.len() as i64 != size.iter().product::<i64>() * width as i64 {
                return Err(differs(format!("`{name}` has another shape than its parameter")).into());
            }
            let value = Tensor::f_from_data_size(view.bytes, &size, moment.kind())?;
            no_grad(|| moment.shallow_clone().f_copy_(&value))?;
        }
        optimizer.set_steps(metadata.optimizer_steps);
        Ok(Self {
            optimizer,
            loss_scale: metadata.loss_scale,
            position: metadata.position,
        })
    }
}

/// A training state on disk, for other programs than `trainer train`.
#[derive(Debug)]
pub struct SavedState {
    /// Of the run.
    pub options: TrainingOptions,
    /// The next step.
    pub position: Position,
    /// Steps that the optimiser has made.
    pub steps: u64,
    tensors: TensorFile,
}

impl SavedState {
    /// Opens the state beside a checkpoint; `None` where there is none, or one of another checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`] where the file can't be read.
    pub fn beside(checkpoint: &Checkpoint) -> Result<Option<Self>, CheckpointError> {
        let path = training_path(checkpoint.path());
        if !path.exists() {
            return Ok(None);
        }
        let metadata = read_metadata(&path)?;
        if metadata.checkpoint_digest != checkpoint.digest() {
            return Ok(None);
        }
        Ok(Some(Self {
            options: metadata.options,
            position: metadata.position,
            steps: metadata.optimizer_steps,
            tensors: open_tensors(&path)?,
        }))
    }

    /// What the optimiser remembers of a parameter: `PARAMETER.first_moment` and so on.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] where there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        self.tensors.tensor(name)
    }

    /// Lets go of the memory that part of a tensor's bytes takes.
    pub(crate) fn release(&self, part: &[u8]) {
        self.tensors.release(part);
    }
}

/// Opens the checkpoint of a run that is to be resumed, finishing an interrupted pair of renames.
///
/// # Errors
/// [`CheckpointError`] where there is no checkpoint, or none that the training state belongs to.
pub fn open_for_resuming(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let wanted = read_metadata(&training_path(path))?.checkpoint_digest;
    let pending = PendingFile::for_path(path);
    match Checkpoint::open(path) {
        Ok(checkpoint) if checkpoint.digest() == wanted => Ok(checkpoint),
        found => match Checkpoint::open(pending.temporary()) {
            Ok(newer) if newer.digest() == wanted && newer.verify().is_ok() => {
                pending.publish()?;
                Checkpoint::open(path)
            }
            _ => found,
        },
    }
}

/// `NAME.training.safetensors` for `NAME.safetensors`.
pub fn training_path(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("training.safetensors")
}

fn read_metadata(path: &Path) -> Result<Metadata, CheckpointError> {
    let tensors = open_tensors(path)?;
    let parse = || {
        let json = tensors
            .metadata()
            .get(METADATA_KEY)
            .ok_or_else(|| CheckpointError::Header("this is no training state".into()))?;
        let metadata: Metadata =
            serde_json::from_str(json).map_err(|error| CheckpointError::Header(error.to_string()))?;
        if metadata.format_version != FORMAT_VERSION {
            return Err(CheckpointError::Version {
                found: metadata.format_version,
            });
        }
        Ok(metadata)
    };
    parse().map_err(|error| at(path, error))
}

fn at(path: &Path, source: CheckpointError) -> CheckpointError {
    CheckpointError::At {
        path: path.into(),
        source: Box::new(source),
    }
}

fn stored_moments(optimizer: &Optimizer) -> Vec<(String, StoredTensor)> {
    let state = optimizer.state();
    state
        .map(|(name, moment)| (name, StoredTensor::new(moment)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::OptimizerOptions;
    use model::{Architecture, Connectivity, InputShape, Preprocessing};

    #[test]
    fn a_resumed_run_has_a_good_checkpoint_from_the_start() {
        let input = InputShape {
            channels: 1,
            height: 8,
            width: 8,
        };
        let writer = || {
            let header = CheckpointHeader {
                architecture: Architecture::resnet_cifar(1, input, 2, 2, Connectivity::Convolutional),
                preprocessing: Preprocessing::unit_range(input),
                class_names: Vec::new(),
                provenance: std::collections::BTreeMap::new(),
            };
            let options = TrainingOptions {
                epochs: 1,
                batch_size: 1,
                micro_batch: None,
                optimizer: OptimizerOptions::default(),
                schedule: crate::training::Schedule::default(),
                sleep_every: None,
                sleep: crate::training::SleepPhase::default(),
                seed: 0,
                precision: Precision::Fp32,
                augmentation: crate::data::Augmentation::None,
            };
            CheckpointWriter::new(Path::new("folder/run.safetensors"), header, options)
        };
        assert_eq!(writer().last_good(), "not written yet");
        assert_eq!(writer().resuming().last_good(), "folder/run.safetensors");
    }
}
