//! From a checkpoint to a published bundle.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use model::manifest::FORMAT_VERSION;
use model::{Checkpoint, Layer, Manifest, WeightType};

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
    /// How weights are stored.
    pub weights: WeightType,
    /// Names of the classes in the order of the logits; `None`: those of the checkpoint.
    pub class_names: Option<Vec<String>>,
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

/// How far an export is, in bytes of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportProgress {
    /// Written so far.
    pub written: u64,
    /// In the end.
    pub total: u64,
}

/// Exports a checkpoint: lowers its network, writes the bundle while the checkpoint is compared with its digest, and
/// publishes the bundle by renaming. The same checkpoint and selection give the same bytes. Memory doesn't grow with the
/// network.
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
    let class_names = class_names(request, &checkpoint)?;
    let pending = PendingBundle::begin(&request.repository, &request.model, request.version)?;
    let mut manifest = manifest(request, &checkpoint, layers, class_names);
    let graph = lower(
        &checkpoint,
        &manifest.layers,
        request.selection.keep_preactivations,
        request.weights,
    )?;

    // Either side stops the other where it fails.
    let stop = AtomicBool::new(false);
    let bytes = thread::scope(|scope| {
        let check = scope.spawn(|| {
            let checked = checkpoint.verify_while(|| !stop.load(Ordering::Relaxed));
            if checked.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            checked
        });
        let written = bundle::write(pending.folder(), graph, &mut manifest, &mut |written, total| {
            if stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            progress(ExportProgress { written, total })
        });
        if written.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let checked = check
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A damaged checkpoint is the reason for whatever else went wrong.
        checked?;
        written
    })?;
    let path = pending.publish()?;
    Ok(ExportSummary {
        path,
        layers: manifest.layers,
        parameters: checkpoint.network().parameter_count(),
        bytes,
    })
}

fn class_names(request: &ExportRequest, checkpoint: &Checkpoint) -> Result<Vec<String>, ExportError> {
    let classes = checkpoint.network().readout.classes;
    match &request.class_names {
        Some(names) if names.len() != classes => Err(ExportError::ClassNames {
            found: names.len(),
            classes,
        }),
        Some(names) => Ok(names.clone()),
        None => Ok(checkpoint.header().class_names.clone()),
    }
}

fn manifest(
    request: &ExportRequest,
    checkpoint: &Checkpoint,
    layers: Vec<Layer>,
    class_names: Vec<String>,
) -> Manifest {
    let header = checkpoint.header();
    Manifest {
        format_version: FORMAT_VERSION,
        architecture: header.architecture.clone(),
        layers,
        preprocessing: header.preprocessing.clone(),
        class_names,
        checkpoint_digest: checkpoint.digest().into(),
        provenance: header.provenance.clone(),
        weights: request.weights,
        data_digest: String::new(),
    }
}
