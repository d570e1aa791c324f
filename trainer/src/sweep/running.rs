//! Does the runs of a sweep, one after the other.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use tch::Device;
use thiserror::Error;

use super::choices::Choices;
use super::outcome::epochs;
use super::plan::{Plan, best};
use super::report::{Report, ReportError, Row};
use super::{Finish, Member, Outcome};
use crate::data::{DataError, DataSet};
use crate::presets::Preset;
use crate::run::execution::{Ending, Execution, Memory, RunError};
use crate::run::file::{self, RunFileError};
use crate::training::{self, TrainingError, training_path};

/// Does the runs of a sweep.
#[derive(Debug)]
pub struct Runner<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// Where everything goes.
    pub folder: &'a Path,
    /// Where to compute.
    pub device: Device,
    /// What memory a run may take.
    pub memory: Option<Memory>,
    /// Folder for TensorBoard's event files, one for every run below it.
    pub events: Option<&'a Path>,
    /// Set to end the sweep; the run that is being done can be resumed.
    pub interrupted: &'a AtomicBool,
}

/// Why a sweep stopped.
#[derive(Debug, Error)]
pub enum RunningError {
    /// Another process does the same.
    #[error("another sweep is running in {}", .0.display())]
    Locked(PathBuf),
    /// A file can't be written or read.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The images can't be loaded.
    #[error("can't load the data set")]
    Data(#[from] DataError),
    /// A run failed.
    #[error("{member}")]
    Run {
        /// Which.
        member: String,
        /// Why.
        #[source]
        source: Box<RunError>,
    },
    /// Its folder holds another run.
    #[error(
        "{} holds a run with other settings: {}; give another --output-dir, or remove that folder",
        folder.display(),
        differences.join("; ")
    )]
    OtherSettings {
        /// The run's folder.
        folder: PathBuf,
        /// What is different.
        differences: Vec<String>,
    },
    /// What is in its folder can't be read.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
    /// The table or a figure can't be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Counts runs and epochs, and knows how long they take.
struct Progress {
    runs: usize,
    done: usize,
    epochs_left: usize,
    /// Epochs that were trained here, not found finished.
    timed: usize,
    spent: Duration,
}

impl Runner<'_> {
    /// Does all runs that aren't finished. The table of the rates is written after every run that chooses one, the other table
    /// and the figures after every one that is tested. Returns nothing where it was interrupted.
    ///
    /// # Errors
    /// [`RunningError`]; what is finished stays so.
    pub fn run(&self) -> Result<Option<Report>, RunningError> {
        fs::create_dir_all(self.folder).map_err(at(self.folder))?;
        let _lock = self.lock()?;
        let mut progress = Progress {
            runs: self.plan.len(),
            done: 0,
            epochs_left: self.plan.epochs(),
            timed: 0,
            spent: Duration::ZERO,
        };
        let Some(run) = self.plan.any_run() else {
            return Ok(Some(Report::default()));
        };
        let data = run.data.open()?;
        let choices = self.plan.choices(data.train.len());
        let validated = match choices.first() {
            None => BTreeMap::new(),
            Some(first) => {
                let held_out = first.run.data.hold_out(data.clone())?;
                let outcomes = self.all(&choices, &held_out, &mut progress, |outcomes| {
                    Ok(Choices(outcomes).write(self.folder)?)
                })?;
                let Some(outcomes) = outcomes else {
                    return Ok(None);
                };
                let accuracies = outcomes
                    .iter()
                    .map(|(member, outcome)| (*member, outcome.finish.top1()));
                best(&accuracies.collect::<Vec<_>>())
            }
        };
        let left_out = |preset: &Preset| {
            let mut choosing = choices.iter().map(|member| member.preset.name);
            choosing.any(|name| name == preset.name) && !validated.contains_key(preset.name)
        };
        for preset in self.plan.presets().filter(|preset| left_out(preset)) {
            tracing::warn!(
                "all runs of `{}` diverged: none of its learning rates can be chosen, and it is left out; lower ones may help",
                preset.name
            );
        }
        let rates = validated.iter().map(|(name, (rate, _))| (*name, *rate)).collect();
        let finals = self.plan.finals(&rates);
        progress.runs = choices.len() + finals.len();
        let epochs = finals.iter().map(|member| member.run.training.epochs);
        progress.epochs_left = epochs.fold(0, usize::saturating_add);
        let report = |outcomes: &[(&Member, Outcome)]| Report {
            rows: self
                .plan
                .presets()
                .filter_map(|preset| {
                    if left_out(preset) {
                        return Some(Row::diverged(preset));
                    }
                    Row::new(preset, outcomes, validated.get(preset.name).map(|best| best.1))
                })
                .collect(),
        };
        if finals.is_empty() {
            report(&[]).write(self.folder)?;
        }
        let outcomes = self.all(&finals, &data, &mut progress, |outcomes| {
            Ok(report(outcomes).write(self.folder)?)
        })?;
        Ok(outcomes.map(|outcomes| report(&outcomes)))
    }

    /// One process a folder.
    fn lock(&self) -> Result<File, RunningError> {
        let path = self.folder.join("sweep.lock");
        let file = File::create(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(RunningError::Locked(self.folder.into())),
            Err(TryLockError::Error(source)) => Err(RunningError::Io { path, source }),
        }
    }

    /// Does runs; nothing where it was interrupted.
    fn all<'m>(
        &self,
        members: &'m [Member],
        data: &DataSet,
        progress: &mut Progress,
        after_each: impl Fn(&[(&'m Member, Outcome)]) -> Result<(), RunningError>,
    ) -> Result<Option<Vec<(&'m Member, Outcome)>>, RunningError> {
        let mut outcomes = Vec::new();
        for member in members {
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let begun = Instant::now();
            let Some((outcome, found)) = self.one(member, data, progress)? else {
                return Ok(None);
            };
            let epochs = member.run.training.epochs;
            progress.done += 1;
            progress.epochs_left = progress.epochs_left.saturating_sub(epochs);
            if !found {
                progress.timed += epochs;
                progress.spent += begun.elapsed();
            }
            outcomes.push((member, outcome));
            after_each(&outcomes)?;
        }
        Ok(Some(outcomes))
    }

    /// A run's outcome, and whether it was finished before; nothing where it was interrupted.
    fn one(
        &self,
        member: &Member,
        data: &DataSet,
        progress: &Progress,
    ) -> Result<Option<(Outcome, bool)>, RunningError> {
        let folder = member.folder(self.folder);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let output = folder.join("run.safetensors");
        let log = folder.join("run.log.jsonl");
        let state = training_path(&output);
        let events = self.events.map(|folder| member.folder(folder));
        let execution = Execution {
            run: &member.run,
            data,
            device: self.device,
            output: &output,
            log: &log,
            events: events.as_deref(),
            resume: state.exists(),
            memory: self.memory,
            interrupted: self.interrupted,
        };
        same_settings(&folder, &output, &execution)?;
        let kept = folder.join("outcome.json");
        let finished = Outcome::read(&kept).map_err(at(&kept))?;
        if let Some(outcome) = finished {
            tracing::info!("{} {member}: finished before", progress.place());
            remove(&state)?;
            return Ok(Some((outcome, true)));
        }
        tracing::info!("{} {member}{}", progress.place(), progress.left());
        let finish = match execution.execute() {
            Ok(Ending::Trained(training::Outcome::Finished(evaluation))) => evaluation.into(),
            Ok(Ending::Trained(training::Outcome::Interrupted)) => return Ok(None),
            // The plan has no run without epochs.
            Ok(Ending::Untrained) => return Ok(None),
            Err(RunError::Training(diverged @ TrainingError::NonFinite { .. })) => {
                tracing::warn!("{member}: {diverged}");
                Finish::Diverged(diverged.to_string())
            }
            Err(source) => {
                return Err(RunningError::Run {
                    member: member.to_string(),
                    source: Box::new(source),
                });
            }
        };
        let outcome = Outcome {
            finish,
            epochs: epochs(&log).map_err(at(&log))?,
        };
        // Numbers as they are read later: a digit may be lost on the way through JSON.
        let outcome = outcome.write(&kept).map_err(at(&kept))?;
        // It is for resuming alone, and the largest of a run's files.
        remove(&state)?;
        Ok(Some((outcome, false)))
    }
}

impl Progress {
    fn place(&self) -> String {
        format!("run {} of {}:", self.done + 1, self.runs)
    }

    /// How long the epochs that are left will take, if they are like those before.
    fn left(&self) -> String {
        if self.timed == 0 {
            return String::new();
        }
        let of_epoch = self.spent.as_secs_f64() / self.timed as f64;
        let left = Duration::try_from_secs_f64(of_epoch * self.epochs_left as f64).unwrap_or(Duration::MAX);
        format!("; about {} left", HumanDuration(left))
    }
}

/// Refuses a folder in which a run with other settings was begun. Other devices and numbers of threads make no other run, nor
/// do settings by which one that has stopped can go on.
fn same_settings(folder: &Path, output: &Path, execution: &Execution) -> Result<(), RunningError> {
    let beside = file::beside(output);
    if !beside.exists() {
        return Ok(());
    }
    let mut there = file::read(&beside)?;
    let here = execution.spelled_out();
    there.compute = here.compute.clone();
    there.data.workers = here.data.workers;
    there.data.skip_corrupt = here.data.skip_corrupt;
    there.training.checkpoint_every = here.training.checkpoint_every;
    there.training.recompute_activations = here.training.recompute_activations;
    let differences = file::differences(&there, &here);
    if differences.is_empty() {
        return Ok(());
    }
    Err(RunningError::OtherSettings {
        folder: folder.into(),
        differences,
    })
}

fn remove(path: &Path) -> Result<(), RunningError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> RunningError + use<> {
    let path = path.to_owned();
    move |source| RunningError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Sweep;

    #[test]
    fn an_interrupted_sweep_begins_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan::new(&Sweep::default(), |_| ()).unwrap();
        let runner = Runner {
            plan: &plan,
            folder: folder.path(),
            device: Device::Cpu,
            memory: None,
            events: None,
            interrupted: &AtomicBool::new(true),
        };
        assert_eq!(runner.run().unwrap(), None);
        assert!(!folder.path().join("final").exists());
    }
}
