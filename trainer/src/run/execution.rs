//! Does what a [`Run`] says: a network is made or read back, trained, and written with its run beside it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use model::architecture::ArchitectureError;
use model::{Architecture, CheckpointError, CheckpointHeader, Network, checkpoint};
use serde_json::json;
use tch::Device;
use thiserror::Error;

use super::file::{self, RunFileError};
use super::{Contradictions, Run};
use crate::convert::ConvertError;
use crate::convert::local::starting_network;
use crate::data::DataSet;
use crate::device::DeviceChoice;
use crate::network::{NetworkError, TorchNetwork};
use crate::plan::{Plan, TooLarge};
use crate::training::{
    CheckpointWriter, Log, Outcome, Position, SingleValue, Trainer, TrainingError, TrainingOptions,
    TrainingState, UnstableSleep, check_batch_size, open_for_resuming,
};

/// Where a checkpoint's provenance has the numbers of images.
const IMAGES: &str = "images";

/// A run with what it works on.
#[derive(Clone, Copy, Debug)]
pub struct Execution<'a> {
    /// What to do.
    pub run: &'a Run,
    /// The images that [`Run::data`] names.
    pub data: &'a DataSet,
    /// Where to compute.
    pub device: Device,
    /// The checkpoint to write.
    pub output: &'a Path,
    /// The log to write.
    pub log: &'a Path,
    /// Folder for TensorBoard's event files.
    pub events: Option<&'a Path>,
    /// Go on from the checkpoint at [`Execution::output`].
    pub resume: bool,
    /// What memory it may take; `None`: as much as it likes.
    pub memory: Option<Memory>,
    /// Set to end training with a checkpoint.
    pub interrupted: &'a AtomicBool,
}

/// What memory a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes.
    pub available: u64,
    /// Whether somebody said so, rather than the system.
    pub limited: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    /// It was to leave the network as it was drawn.
    Untrained,
    /// It trained.
    Trained(Outcome),
}

/// Why a run can't be done.
#[derive(Debug, Error)]
pub enum RunError {
    /// Its settings contradict each other.
    #[error(transparent)]
    Contradictions(#[from] Contradictions),
    /// There is no such network.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// Its sleep phase would drive weights apart.
    #[error(transparent)]
    Sleep(#[from] UnstableSleep),
    /// Its batches are too small for BatchNorm.
    #[error(transparent)]
    Batches(#[from] SingleValue),
    /// It needs more memory than there is.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A network can't be made or computed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Training ended.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A checkpoint can't be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is nothing to go on from.
    #[error("there is no run to resume")]
    NothingToResume(#[source] CheckpointError),
    /// The run to go on with has other images or another network.
    #[error(
        "{} was begun with other settings: {}; resume with the options that it was started with",
        path.display(),
        differences.join("; ")
    )]
    OtherSettings {
        /// The checkpoint.
        path: PathBuf,
        /// What is different.
        differences: Vec<String>,
    },
    /// The checkpoint to go on from is another network's.
    #[error(
        "{} was trained with another network or other images; resume with the options that it was started with",
        .0.display()
    )]
    OtherRun(PathBuf),
    /// The network of the checkpoint to begin with can't become the run's.
    #[error("can't begin with `network.start_from`")]
    StartFrom(#[source] ConvertError),
    /// The run can't be written.
    #[error(transparent)]
    RunFile(#[from] RunFileError),
}

/// Checks that a network can be trained so.
///
/// # Errors
/// [`RunError::Sleep`] and [`RunError::Batches`].
pub(crate) fn check(network: &Network, options: &TrainingOptions) -> Result<(), RunError> {
    if options.sleep_every.is_some() {
        options.sleep.check(network)?;
    }
    Ok(check_batch_size(network, options.batch_size)?)
}

impl Execution<'_> {
    /// Trains to the end of the run, or until it is interrupted. The run is written as `NAME.toml` beside the checkpoint, with
    /// every setting spelled out, unless a file there means the same run. What can be refused is refused before anything is
    /// written.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn execute(&self) -> Result<Ending, RunError> {
        self.run.check()?;
        let run = self.run;
        let options = run.options(self.device);
        let header = self.header(&options);
        let network = header.architecture.network()?;
        check(&network, &options)?;
        if let Some(Memory { available, limited }) = self.memory {
            Plan::fitting(&network, &run.setup(self.device), available, limited)?;
        }
        tracing::info!(
            parameters = network.parameter_count(),
            training_images = self.data.train.len(),
            test_images = self.data.test.len(),
            "{}",
            self.data.source
        );

        tch::manual_seed(i64::from_ne_bytes(options.seed.to_ne_bytes()));
        let (network, start) = if self.resume {
            self.read_back(&header, &options)?
        } else {
            let network = match &run.network.start_from {
                Some(path) => starting_network(path, &header, self.device).map_err(RunError::StartFrom)?,
                None => TorchNetwork::initialise(network, run.network.initialisation(), self.device)?,
            };
            let start = TrainingState::fresh(&network, &options)?;
            (network, start)
        };
        let network = network.with_training_precision(options.precision);
        self.write_run()?;
        if options.epochs == 0 {
            let mut header = header;
            let provenance = &mut header.provenance;
            provenance.insert("trained".into(), json!(Position::default()));
            checkpoint::write(self.output, &header, &network.store().stored())?;
            return Ok(Ending::Untrained);
        }
        self.train(&network, start, header).map(Ending::Trained)
    }

    fn train(
        &self,
        network: &TorchNetwork,
        start: TrainingState,
        header: CheckpointHeader,
    ) -> Result<Outcome, RunError> {
        let options = self.run.options(self.device);
        let mut log = Log::open(self.log, self.resume)?.with_events(self.events);
        let preprocessing = header.preprocessing.clone();
        let writer = CheckpointWriter::new(self.output, header, options);
        let writer = if self.resume { writer.resuming() } else { writer };
        let trainer = Trainer {
            network,
            data: self.data,
            workers: self.run.data.workers(),
            skip_corrupt: self.run.data.skip_corrupt,
            preprocessing: &preprocessing,
            device: self.device,
            options,
            recompute: self.run.training.recompute_activations,
            checkpoint_every: self.run.training.checkpoint_every,
            interrupted: self.interrupted,
        };
        Ok(trainer.run(start, &writer, &mut log)?)
    }

    fn read_back(
        &self,
        header: &CheckpointHeader,
        options: &TrainingOptions,
    ) -> Result<(TorchNetwork, TrainingState), RunError> {
        let checkpoint = open_for_resuming(self.output).map_err(RunError::NothingToResume)?;
        checkpoint.verify()?;
        let stored = checkpoint.header();
        let counts = stored.provenance.get(IMAGES);
        self.same_settings(counts.is_some())?;
        if stored.architecture != header.architecture
            || stored.preprocessing != header.preprocessing
            || stored.class_names != header.class_names
            || counts.is_some_and(|counts| Some(counts) != header.provenance.get(IMAGES))
        {
            return Err(RunError::OtherRun(self.output.into()));
        }
        let network = TorchNetwork::load(&checkpoint, self.device)?;
        let state = TrainingState::load(self.output, &checkpoint, &network, options)?;
        Ok((network, state))
    }

    /// Writes the run beside its checkpoint, unless a file there says the same already, perhaps in the words of who wrote it.
    fn write_run(&self) -> Result<(), RunFileError> {
        let path = file::beside(self.output);
        let here = self.spelled_out();
        let same = file::read(&path).is_ok_and(|run| Execution { run: &run, ..*self }.spelled_out() == here);
        if same {
            return Ok(());
        }
        file::write(&path, &here)
    }

    /// Refuses to go on with other images or another network than the run file beside the checkpoint says. The images may have
    /// been moved where the checkpoint tells how many they were.
    fn same_settings(&self, may_be_moved: bool) -> Result<(), RunError> {
        let beside = file::beside(self.output);
        if !beside.exists() {
            return Ok(());
        }
        let there = file::read(&beside)?;
        let there = Execution { run: &there, ..*self }.spelled_out();
        let here = self.spelled_out();
        // The other sections are compared with the training state, which knows them better.
        let mut compared = Run {
            data: there.data,
            network: there.network,
            ..here.clone()
        };
        // These decide nothing.
        compared.data.workers = here.data.workers;
        compared.data.skip_corrupt = here.data.skip_corrupt;
        if may_be_moved && compared.data.path != here.data.path {
            compared.data.path.clone_from(&here.data.path);
            tracing::warn!("the images are those of {} now", self.data.source);
        }
        let differences = file::differences(&compared, &here);
        if differences.is_empty() {
            return Ok(());
        }
        Err(RunError::OtherSettings {
            path: self.output.into(),
            differences,
        })
    }

    fn header(&self, options: &TrainingOptions) -> CheckpointHeader {
        let Self { run, data, .. } = self;
        let architecture = self.architecture();
        let mut provenance = BTreeMap::from([
            (
                "program".to_owned(),
                json!(concat!("trainer ", env!("CARGO_PKG_VERSION"))),
            ),
            ("data".to_owned(), json!(data.source)),
            (
                IMAGES.to_owned(),
                json!({ "train": data.train.len(), "test": data.test.len() }),
            ),
            (
                "initialisation".to_owned(),
                match &run.network.start_from {
                    Some(path) => json!({ "from": path.file_name().map(OsStr::to_string_lossy) }),
                    None => json!(run.network.initialisation_name()),
                },
            ),
            ("options".to_owned(), json!(options)),
        ]);
        if let Some(preset) = &run.preset {
            provenance.insert("preset".into(), json!(preset));
        }
        CheckpointHeader {
            preprocessing: data.preprocessing(architecture.input),
            architecture,
            class_names: data.class_names.clone(),
            provenance,
        }
    }

    /// The network.
    fn architecture(&self) -> Architecture {
        let input = self.run.data.input(self.data.default_input());
        self.run.network.architecture(input, self.data.class_names.len())
    }

    /// The run with what this machine, the data set and defaults have decided.
    pub fn spelled_out(&self) -> Run {
        let architecture = self.architecture();
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let mut run = self.run.clone();
        let input = architecture.input;
        run.data.path = run.data.path.as_ref().map(absolute);
        run.data.input_size = Some([input.height, input.width]);
        run.data.channels = Some(input.channels);
        run.network.start_from = run.network.start_from.as_ref().map(absolute);
        run.network.blocks = Some(architecture.blocks);
        run.network.width = Some(architecture.width);
        run.sleep = run.sleep.spelled_out();
        run.training.precision = run.training.precision.resolve(self.device).into();
        run.compute.device = DeviceChoice::from(self.device);
        run.compute.threads = usize::try_from(tch::get_num_threads()).ok();
        run
    }
}
