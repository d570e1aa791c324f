//! The training log: one JSON object a line, for programs to read, and the same figures as TensorBoard's event files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Evaluation, Position, TrainingError};
use crate::tensorboard::EventWriter;

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
        /// Fraction of the batch's images whose class had the largest logit before the step, 0..1.
        top1: f64,
        /// Fraction of those whose class was among the five largest logits, 0..1.
        top5: f64,
        /// Of the step.
        learning_rate: f64,
        /// Of the steps to come, under float16.
        #[serde(skip_serializing_if = "Option::is_none")]
        loss_scale: Option<f64>,
        /// Over this step alone.
        images_per_second: f64,
    },
    /// After every epoch.
    Epoch {
        /// Counted from 1.
        epoch: usize,
        /// On the test images.
        test: Evaluation,
        /// Of the epoch's steps.
        learning_rate: f64,
        /// Over the epoch's steps, sleep phases among them.
        images_per_second: f64,
        /// Signal-to-noise ratio of the weights by layer; null where all positions are equal.
        weight_snr: BTreeMap<String, f64>,
        /// What it takes.
        #[serde(flatten)]
        memory: Memory,
    },
}

/// Memory in bytes, as far as the system tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// That the process has now.
    #[serde(rename = "memory", skip_serializing_if = "Option::is_none")]
    pub resident: Option<u64>,
    /// The most that the process ever had, so far.
    #[serde(rename = "peak_memory", skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// In use on the GPU, by this process and others.
    #[serde(rename = "device_memory", skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
}

/// What a line is about; the rest of it doesn't matter where a run goes on.
#[derive(Deserialize)]
struct Line {
    epoch: usize,
    /// None after an epoch.
    step: Option<usize>,
}

impl Line {
    /// Whether a run that goes on at `position` won't say it again.
    fn is_before(&self, position: Position) -> bool {
        match self.step {
            Some(step) => (self.epoch, step) <= (position.epoch + 1, position.step),
            None => self.epoch <= position.epoch,
        }
    }
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    resumed: bool,
    events_folder: Option<PathBuf>,
    events: Option<EventWriter>,
    /// Steps from one epoch to the next.
    steps: usize,
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
                resumed: resume,
                events_folder: None,
                events: None,
                steps: 0,
            }),
            Err(source) => Err(TrainingError::Log {
                path: path.into(),
                source,
            }),
        }
    }

    /// Writes event files for TensorBoard to a folder too.
    #[must_use]
    pub fn with_events(self, folder: Option<&Path>) -> Self {
        Self {
            events_folder: folder.map(Into::into),
            ..self
        }
    }

    /// Begins at a position of a run with so many steps an epoch. What a killed run has said of later steps, or has begun to
    /// say, no longer counts: it is taken out, as this one says it again.
    ///
    /// # Errors
    /// [`TrainingError::Log`] or [`TrainingError::Events`] where a file can't be written.
    pub(super) fn begin(&mut self, position: Position, steps: usize) -> Result<(), TrainingError> {
        self.steps = steps;
        if self.resumed {
            self.cut(position).map_err(|source| self.failed(source))?;
        }
        if let Some(folder) = &self.events_folder {
            let first = position.epoch * steps + position.step + 1;
            self.events = Some(EventWriter::create(folder, first as u64)?);
        }
        Ok(())
    }

    /// Cuts the lines off that aren't before a position, and a last one that is incomplete.
    fn cut(&self, position: Position) -> io::Result<()> {
        // A pipe has nothing to cut.
        if !self.file.metadata()?.is_file() {
            return Ok(());
        }
        let mut reader = BufReader::new(File::open(&self.path)?);
        let (mut kept, mut line) = (0, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            let later = |line: Line| !line.is_before(position);
            // Lines that aren't ours stay.
            if !line.ends_with(b"\n") || serde_json::from_slice(&line).is_ok_and(later) {
                return self.file.set_len(kept);
            }
            kept += length as u64;
        }
    }

    /// Appends a line. It reaches the operating system at once, so that `tail -f` shows it.
    ///
    /// # Errors
    /// [`TrainingError::Log`] or [`TrainingError::Events`], for instance where the disk is full.
    pub fn write(&mut self, record: &Record) -> Result<(), TrainingError> {
        let mut line = serde_json::to_vec(record).map_err(|error| self.failed(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|source| self.failed(source))?;
        if let Some(events) = &mut self.events {
            let (step, scalars) = scalars(record, self.steps);
            events.scalars(step, scalars.iter().map(|(tag, value)| (tag.as_str(), *value)))?;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> TrainingError {
        TrainingError::Log {
            path: self.path.clone(),
            source,
        }
    }
}

/// A record's figures by their names in TensorBoard, with the number of steps made by then.
fn scalars(record: &Record, steps: usize) -> (u64, Vec<(String, f64)>) {
    let named = |figures: &[(&str, Option<f64>)]| -> Vec<(String, f64)> {
        let known = |&(tag, value): &(&str, Option<f64>)| Some((tag.to_owned(), value?));
        figures.iter().filter_map(known).collect()
    };
    match record {
        Record::Step {
            epoch,
            step,
            loss,
            top1,
            top5,
            learning_rate,
            loss_scale,
            images_per_second,
        } => {
            let made = (epoch - 1) * steps + step;
            let figures = named(&[
                ("train/loss", Some(*loss)),
                ("train/top1", Some(*top1)),
                ("train/top5", Some(*top5)),
                ("train/learning_rate", Some(*learning_rate)),
                ("train/loss_scale", *loss_scale),
                ("train/images_per_second", Some(*images_per_second)),
            ]);
            (made as u64, figures)
        }
        Record::Epoch {
            epoch,
            test,
            learning_rate: _,
            images_per_second,
            weight_snr,
            memory,
        } => {
            let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
            let mut figures = named(&[
                ("test/top1", Some(test.top1)),
                ("test/top5", Some(test.top5)),
                ("test/loss", Some(test.loss)),
                ("epoch/images_per_second", Some(*images_per_second)),
                ("memory/resident", bytes(memory.resident)),
                ("memory/peak", bytes(memory.peak)),
                ("memory/device", bytes(memory.device)),
            ]);
            figures.extend(
                weight_snr
                    .iter()
                    .map(|(layer, &snr)| (format!("weight_snr/{layer}"), snr)),
            );
            ((epoch * steps) as u64, figures)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Steps of an epoch.
    const STEPS: usize = 3;

    fn step(epoch: usize, step: usize) -> Record {
        Record::Step {
            epoch,
            step,
            loss: 1.0,
            top1: 0.25,
            top5: 0.5,
            learning_rate: 0.5,
            loss_scale: None,
            images_per_second: 10.0,
        }
    }

    fn epoch(epoch: usize) -> Record {
        Record::Epoch {
            epoch,
            test: Evaluation {
                top1: 0.5,
                top5: 0.75,
                loss: 1.0,
                images: 4,
            },
            learning_rate: 0.5,
            images_per_second: 10.0,
            weight_snr: BTreeMap::from([("conv1".into(), 2.0)]),
            memory: Memory::default(),
        }
    }

    /// What a run says from a position to the end of its third epoch, as (epoch, step).
    fn records(from: Position) -> Vec<Record> {
        (from.epoch..3)
            .flat_map(|index| {
                let first = if index == from.epoch { from.step } else { 0 };
                let steps = (first..STEPS).map(move |number| step(index + 1, number + 1));
                steps.chain([epoch(index + 1)])
            })
            .collect()
    }

    fn write(path: &Path, resume: bool, from: Position, count: usize) {
        let mut log = Log::open(path, resume).unwrap();
        log.begin(from, STEPS).unwrap();
        for record in records(from).iter().take(count) {
            log.write(record).unwrap();
        }
    }

    proptest! {
        #[test]
        fn a_killed_run_that_goes_on_says_everything_once(
            (epoch, step) in (0_usize..3, 0..STEPS),
            more in 0_usize..12,
            torn in 0_usize..30,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log.jsonl");
            write(&path, false, Position::default(), usize::MAX);
            let whole = std::fs::read_to_string(&path).unwrap();

            // It was killed some lines after its last checkpoint, perhaps within a line.
            let position = Position { epoch, step };
            let before = records(Position::default()).len() - records(position).len();
            write(&path, false, Position::default(), before + more);
            let mut killed = std::fs::read_to_string(&path).unwrap();
            killed.push_str(&r#"{"event":"step","epoch":1,"step":"#[..torn.min(30)]);
            std::fs::write(&path, killed).unwrap();
            write(&path, true, position, usize::MAX);
            prop_assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
    }

    #[test]
    fn figures_have_the_number_of_steps_made_by_then() {
        let (at, figures) = scalars(&step(3, 2), 10);
        assert_eq!(at, 22);
        let tags: Vec<&str> = figures.iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(
            tags,
            [
                "train/loss",
                "train/top1",
                "train/top5",
                "train/learning_rate",
                "train/images_per_second"
            ]
        );
        let (at, figures) = scalars(&epoch(3), 10);
        assert_eq!(at, 30);
        assert!(figures.contains(&("test/top5".into(), 0.75)));
        assert!(figures.contains(&("weight_snr/conv1".into(), 2.0)));
    }

    #[test]
    fn lines_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, "a note\n{\"epoch\": 1, \"step\": 1}\n{\"epoch\": 9}\n").unwrap();
        let mut log = Log::open(&path, true).unwrap();
        log.begin(Position { epoch: 0, step: 1 }, STEPS).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "a note\n{\"epoch\": 1, \"step\": 1}\n"
        );
    }
}
