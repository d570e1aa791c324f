//! From a checkpoint to a published bundle.

use std::ops::ControlFlow;
use std::path::PathBuf;

use model::manifest::FORMAT_VERSION;
use model::{Checkpoint, Layer, Manifest};

use crate::bundle::{self, ModelName, PendingBundle, Version};
use crate::error::ExportError;
use crate::lowering::lower;
use crate::selection::LayerSelection;

/// What is exported, and where to.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The checkpoint's file.
    pub checkpoint: PathBuf,
    /// The repository's folder; made where it doesn't exist.
    pub repository: PathBuf,
    /// The model's name in the repository.
    pub model: ModelName,
    /// `None`: one more than the highest version that is there.
    pub version: Option<Version>,
    /// Which layers.
    pub selection: LayerSelection,
}

/// What was exported.
#[derive(Clone, Debug)]
pub struct ExportSummary {
    /// The bundle's folder.
    pub path: PathBuf,
    /// The layers that the bundle gives, in the order in which they are computed.
    pub layers: Vec<Layer>,
    /// Trained numbers of the network.
    pub parameters: usize,
    /// Of the bundle's files together.
    pub bytes: u64,
}

/// How far an export is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportProgress {
    /// The checkpoint is read and compared with its digest.
    Checking,
    /// The weights are written.
    Writing {
        /// Bytes so far.
        written: u64,
        /// Bytes in the end.
        total: u64,
    },
}

/// Exports a checkpoint: checks it, lowers its network, writes the bundle and publishes it by renaming. The same
/// checkpoint and selection give the same bytes. Memory doesn't grow with the network, except for the pages of the
/// mapped checkpoint, which the operating system takes back when it needs them.
///
/// `progress` is called often; where it returns [`ControlFlow::Break`], the export stops.
///
/// # Errors
/// Any [`ExportError`]; the repository is then as it was.
pub fn export(
    request: &ExportRequest,
    progress: &mut dyn FnMut(ExportProgress) -> ControlFlow<()>,
) -> Result<ExportSummary, ExportError> {
    let checkpoint = Checkpoint::open(&request.checkpoint)?;
    let layers = request.selection.layers(checkpoint.network())?;
    let pending = PendingBundle::begin(&request.repository, &request.model, request.version)?;
    report(progress, ExportProgress::Checking)?;
    checkpoint.verify()?;

    let manifest = manifest(&checkpoint, layers);
    let graph = lower(
        &checkpoint,
        &manifest.layers,
        request.selection.keep_preactivations,
    )?;
    let bytes = bundle::write(pending.folder(), graph, &manifest, &mut |written, total| {
        progress(ExportProgress::Writing { written, total })
    })?;
    let path = pending.publish()?;
    Ok(ExportSummary {
        path,
        layers: manifest.layers,
        parameters: checkpoint.network().parameter_count(),
        bytes,
    })
}

fn report(
    progress: &mut dyn FnMut(ExportProgress) -> ControlFlow<()>,
    event: ExportProgress,
) -> Result<(), ExportError> {
    match progress(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ExportError::Interrupted),
    }
}

fn manifest(checkpoint: &Checkpoint, layers: Vec<Layer>) -> Manifest {
    let header = checkpoint.header();
    Manifest {
        format_version: FORMAT_VERSION,
        architecture: header.architecture.clone(),
        layers,
        preprocessing: header.preprocessing.clone(),
        class_names: header.class_names.clone(),
        checkpoint_digest: checkpoint.digest().into(),
        provenance: header.provenance.clone(),
    }
}
