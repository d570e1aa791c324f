//! What can be wrong with a checkpoint.

use std::path::PathBuf;

use thiserror::Error;

use super::header::FORMAT_VERSION;

/// What is wrong with a checkpoint. [`CheckpointError::At`] adds the file's name.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// An error with the file that it is about.
    #[error("{}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<CheckpointError>,
    },
    /// The operating system refused.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Not a safetensors file, or a truncated or damaged one.
    #[error("not a complete safetensors file; it is truncated, damaged or of another format")]
    Format(#[source] safetensors::SafeTensorError),
    /// A safetensors file without our metadata.
    #[error(
        "a safetensors file without Ventral's metadata; it was not written by `trainer` (use `trainer import` for \
         PyTorch checkpoints)"
    )]
    NotACheckpoint,
    /// Written by another version of the program.
    #[error("checkpoint format version {found}; this program reads version {FORMAT_VERSION}")]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The metadata is not what it should be.
    #[error("invalid checkpoint metadata: {0}")]
    Header(String),
    /// The architecture in the metadata can't be built.
    #[error("invalid checkpoint metadata")]
    Architecture(#[from] crate::architecture::ArchitectureError),
    /// A tensor that the architecture needs is not there.
    #[error("tensor `{0}` is missing, though the checkpoint's architecture needs it")]
    MissingTensor(String),
    /// A tensor that the architecture doesn't know.
    #[error("unexpected tensor `{0}`: the checkpoint's architecture has none of that name")]
    UnexpectedTensor(String),
    /// A tensor of another shape or element type.
    #[error("tensor `{name}` is {found}; the checkpoint's architecture needs {expected}")]
    WrongTensor {
        /// The tensor's name.
        name: String,
        /// Element type and shape that were found.
        found: String,
        /// Element type and shape that are right.
        expected: String,
    },
    /// The contents are not those that were written.
    #[error(
        "the digest of the contents is {found}, the metadata says {expected}: the file is damaged, restore it from a \
         copy"
    )]
    Digest {
        /// Of what the file holds.
        found: String,
        /// As written.
        expected: String,
    },
}

impl CheckpointError {
    pub(super) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(super) fn at(self, path: &std::path::Path) -> Self {
        Self::At {
            path: path.into(),
            source: Box::new(self),
        }
    }
}
