//! Checkpoints of a training run: `NAME.safetensors` for everyone, `NAME.training.safetensors` to resume from.
//!
//! Both files are written and synced under temporary names before either is renamed, the training state first. Killed
//! between the two renames, a run finds the newer checkpoint under its temporary name and finishes the job.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use model::checkpoint::{PendingFile, open_tensors, write_pending, write_tensors};
use model::{Checkpoint, CheckpointError, CheckpointHeader};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Kind, Tensor, no_grad};

use super::adamw::AdamW;
use super::{Evaluation, TrainingError, TrainingOptions};
use crate::network::{StoredTensor, TorchNetwork};

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
    pub optimizer: AdamW,
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

    /// The file of the last checkpoint that this run wrote, for error messages.
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
        optimizer: &AdamW,
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
        let optimizer = AdamW::new(network.store(), options.optimizer)?;
        Ok(Self {
            optimizer,
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
        let mut optimizer = AdamW::new(network.store(), options.optimizer)?;
        for parameter in optimizer.parameters_mut() {
            for (moment, which) in [
                (&mut parameter.first_moment, "first"),
                (&mut parameter.second_moment, "second"),
            ] {
                let name = moment_name(&parameter.name, which);
                let view = tensors.tensor(&name)?;
                let size = moment.size();
                if view.bytes.len() as i64 != size.iter().product::<i64>() * 4 {
                    return Err(differs(format!("`{name}` has another shape than its parameter")).into());
                }
                let value = Tensor::f_from_data_size(view.bytes, &size, Kind::Float)?;
                no_grad(|| moment.f_copy_(&value))?;
            }
        }
        optimizer.set_steps(metadata.optimizer_steps);
        Ok(Self {
            optimizer,
            position: metadata.position,
        })
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

fn moment_name(parameter: &str, which: &str) -> String {
    format!("{parameter}.{which}_moment")
}

fn stored_moments(optimizer: &AdamW) -> Vec<(String, StoredTensor)> {
    let parameters = optimizer.parameters().iter();
    parameters
        .flat_map(|parameter| {
            [
                ("first", &parameter.first_moment),
                ("second", &parameter.second_moment),
            ]
            .map(|(which, moment)| (moment_name(&parameter.name, which), StoredTensor::new(moment)))
        })
        .collect()
}
