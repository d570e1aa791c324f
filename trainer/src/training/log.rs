//! The training log: one JSON object a line, for programs to read.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Evaluation, TrainingError};

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Record {
    /// After every step.
    Step {
        /// Counted from 1.
        epoch: usize,
        /// Counted from 1 in every epoch.
        step: usize,
        /// Mean cross-entropy of the batch, before the step.
        loss: f64,
        /// Of the step.
        learning_rate: f64,
        /// Over this step alone.
        images_per_second: f64,
    },
    /// After every epoch.
    Epoch {
        /// Counted from 1.
        epoch: usize,
        /// On the test images.
        test: Evaluation,
        /// Signal-to-noise ratio of the weights by layer; null where all positions are equal.
        weight_snr: BTreeMap<String, f64>,
    },
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens a log; `resume` keeps what is in it.
    ///
    /// # Errors
    /// [`TrainingError::Log`] where the file can't be opened.
    pub fn open(path: &Path, resume: bool) -> Result<Self, TrainingError> {
        let mut options = OpenOptions::new();
        options.create(true).write(true).append(resume).truncate(!resume);
        match options.open(path) {
            Ok(file) => Ok(Self {
                path: path.into(),
                file,
            }),
            Err(source) => Err(TrainingError::Log {
                path: path.into(),
                source,
            }),
        }
    }

    /// Appends a line. It reaches the operating system at once, so that `tail -f` shows it.
    ///
    /// # Errors
    /// [`TrainingError::Log`], for instance where the disk is full.
    pub fn write(&mut self, record: &Record) -> Result<(), TrainingError> {
        let failed = |source| TrainingError::Log {
            path: self.path.clone(),
            source,
        };
        let mut line = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(failed)
    }
}
