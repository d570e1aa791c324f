//! What can go wrong in exporting, in reading a bundle and in verifying one.

use std::io;
use std::path::{Path, PathBuf};

use model::CheckpointError;
use model::manifest::ManifestError;
use thiserror::Error;

/// Why a checkpoint wasn't exported. Nothing is left in the repository.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The checkpoint can't be read, is of another format or damaged.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Layers that the network doesn't have.
    #[error(
        "the network has no layer {}; its layers are: {}",
        quoted(unknown),
        known.join(", ")
    )]
    UnknownLayers {
        /// As asked for.
        unknown: Vec<String>,
        /// In the order in which they are computed.
        known: Vec<String>,
    },
    /// Layers that exist only where BatchNorm is kept apart.
    #[error(
        "{} can't be exported: BatchNorm is folded into the weights, which leaves no value before it; add \
         --keep-preactivations",
        quoted(layers)
    )]
    FoldedLayers {
        /// As asked for.
        layers: Vec<String>,
    },
    /// A selection without a layer.
    #[error("no layer to export: name at least one")]
    NoLayers,
    /// Class names for another number of classes.
    #[error("{found} class names for a network of {classes} classes; give {classes}, one a line")]
    ClassNames {
        /// How many were given.
        found: usize,
        /// How many are needed.
        classes: usize,
    },
    /// A BatchNorm whose scale and shift aren't numbers.
    #[error(
        "BatchNorm `{norm}` can't be applied: in channel {channel} it scales by {scale} and shifts by {shift} (running \
         variance {variance}); the network has diverged or its running statistics are damaged"
    )]
    BatchNorm {
        /// Path of the BatchNorm's tensors.
        norm: String,
        /// Counted from 0.
        channel: usize,
        /// γ / √(variance + 1e-5).
        scale: f64,
        /// β − mean · scale.
        shift: f64,
        /// As stored.
        variance: f64,
    },
    /// A weight that can't be stored in the type that was asked for.
    #[error("constant `{tensor}` can't be stored: {reason}; use `--weights bf16` or `--weights fp32`")]
    Weight {
        /// The constant's name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The version is there already.
    #[error(
        "version {version} of `{model}` exists already ({}); a published bundle is never replaced: use --model-version \
         {next}, or leave the option out",
        path.display()
    )]
    VersionExists {
        /// The model's name.
        model: String,
        /// The version that was asked for.
        version: u32,
        /// A version that is free.
        next: u32,
        /// Where it is.
        path: PathBuf,
    },
    /// No version is left.
    #[error("`{model}` has used up every version number; remove the folder of the last one")]
    NoVersionLeft {
        /// The model's name.
        model: String,
    },
    /// Another process writes to the same model.
    #[error("another export to {} is running; wait until it is done", path.display())]
    Busy {
        /// The model's folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The manifest can't be written as JSON.
    #[error("can't write the bundle's manifest")]
    Manifest(#[source] serde_json::Error),
    /// Stopped by the user.
    #[error("interrupted; nothing was exported")]
    Interrupted,
}

/// Why a bundle can't be used.
#[derive(Debug, Error)]
pub enum BundleError {
    /// An error with the file or folder that it is about.
    #[error("{}", path.display())]
    At {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<BundleError>,
    },
    /// The operating system refused.
    #[error("can't {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A graph far larger than any that is exported.
    #[error("{found} bytes; a graph has at most {limit}")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// Not an ONNX file.
    #[error("not an ONNX file, or a damaged one: {0}")]
    Format(String),
    /// An ONNX file without our manifest.
    #[error("an ONNX file without Ventral's manifest; it was not written by `exporter`")]
    NotABundle,
    /// The manifest can't be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Graph and manifest don't fit together.
    #[error("the graph doesn't fit the manifest: {0}")]
    Graph(String),
    /// A constant that can't be loaded.
    #[error("constant `{tensor}`: {reason}")]
    Tensor {
        /// The constant's name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A verification that can't be read.
    #[error("the entry that says how the bundle was verified is not valid: {0}")]
    Verification(#[source] serde_json::Error),
    /// A data file that isn't the one that was exported.
    #[error(
        "the file is damaged or another bundle's: its BLAKE3 digest is {found}, the manifest says {expected}; export the \
         checkpoint again"
    )]
    DataDigest {
        /// Of the file.
        found: String,
        /// In the manifest.
        expected: String,
    },
}

/// Why a bundle couldn't be compared with a recording. A comparison that fails is no error but a
/// [`Report`](crate::verify::Report) that hasn't passed.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The bundle can't be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The recording can't be used.
    #[error(transparent)]
    Recording(#[from] CheckpointError),
    /// The recording is of another network.
    #[error(
        "bundle and recording come from different checkpoints: the bundle was exported from the one of digest {bundle}, \
         the recording was made with the one of digest {recording}"
    )]
    Digest {
        /// In the bundle's manifest.
        bundle: String,
        /// In the recording.
        recording: String,
    },
    /// The recorded images don't fit the bundle's input.
    #[error("the recording's images are {found:?}; the bundle takes {expected}")]
    Input {
        /// Shape of the recording's `input`.
        found: Vec<usize>,
        /// What is right.
        expected: String,
    },
    /// A layer has two shapes.
    #[error("layer `{layer}` is {recorded:?} in the recording and {exported:?} in the bundle")]
    Shape {
        /// The layer's name.
        layer: String,
        /// Shape in the recording.
        recorded: Vec<usize>,
        /// Shape in the bundle.
        exported: Vec<usize>,
    },
    /// Nothing to compare.
    #[error("bundle and recording share no layer: the bundle has {}", exported.join(", "))]
    NoSharedLayer {
        /// The bundle's layers.
        exported: Vec<String>,
    },
    /// tract can't load or run the graph.
    #[error("tract can't {action}: {reason}")]
    Inference {
        /// What was tried.
        action: &'static str,
        /// tract's words.
        reason: String,
    },
    /// The bundle can't be told that it is verified.
    #[error(
        "can't write the verification into {}; with --read-only the bundle stays as it is",
        path.display()
    )]
    Attach {
        /// The bundle's folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The report can't be written.
    #[error("can't write the report {}", path.display())]
    Report {
        /// The report's file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ExportError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl BundleError {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(crate) fn at(self, path: &Path) -> Self {
        Self::At {
            path: path.into(),
            source: Box::new(self),
        }
    }
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
