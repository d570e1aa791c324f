//! What can be wrong with a bundle, or with a whole repository.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::bundle::BundleError;
use crate::error::InternalError;

/// A bundle that can't be served.
#[derive(Debug, Error)]
#[error("model `{model}` version {version}")]
pub struct BrokenBundle {
    /// The model's name.
    pub model: String,
    /// The version.
    pub version: u64,
    /// Why.
    pub source: BrokenBundleReason,
}

/// Why a bundle can't be served.
#[derive(Debug, Error)]
pub enum BrokenBundleReason {
    /// Its files are wrong.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// No session of it can be made.
    #[error(transparent)]
    Session(#[from] InternalError),
    /// More weights than all models may have together.
    #[error(
        "its weights take {found} bytes, the limit for all models is {limit} (`repository.memory_limit`)"
    )]
    PastMemoryLimit {
        /// In bytes.
        found: u64,
        /// In bytes.
        limit: u64,
    },
    /// Files that were replaced while they were read, more than once.
    #[error("its files keep changing; a bundle must appear whole, by renaming its folder")]
    Changing,
}

impl BrokenBundleReason {
    /// Whether it may be otherwise the next time though no file has changed: a disk that can't be read, memory that there
    /// isn't.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Bundle(BundleError::Read { .. }) | Self::Session(_))
    }
}

/// Why a repository can't be served.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// There is no such folder.
    #[error(
        "the model repository `{}` does not exist; `--models` takes the folder that `exporter export --repository` \
         writes to", .path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A folder that can't be read.
    #[error("the model repository's folder `{}` can't be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder without models.
    #[error(
        "the model repository `{path}` has no models: expected {path}/<model>/<version>/model.onnx, the version being a \
         whole number from 1; `exporter export CHECKPOINT.safetensors --repository {path} --model NAME` makes one, and \
         `--repository-poll-interval TIME` waits for one",
        path = .path.display()
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Not one bundle that can be served.
    #[error("none of the {count} bundles in the model repository `{}` can be served; the first", .path.display())]
    AllBroken {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// What is wrong with the first.
        source: Box<BrokenBundle>,
    },
    /// A task that panicked, or that ended because the server did.
    #[error(transparent)]
    Internal(#[from] InternalError),
}
