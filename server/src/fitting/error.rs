//! Why a fit ends before its time.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::error::{Code, InternalError, ServerError};

/// Why a fit ends before its time. The message is for the client, unless the fault is the server's own.
#[derive(Debug, Error)]
pub enum FitError {
    /// Too few images to vary.
    #[error("{found} images came: a fit takes two at least")]
    TooFewImages {
        /// How many came.
        found: usize,
    },
    /// A network that computes no numbers.
    #[error("layer `{layer}`: an activation of image {image} (counted from 0) is not a finite number")]
    NotFinite {
        /// The layer's name.
        layer: String,
        /// Among the fit's images that could be read.
        image: usize,
    },
    /// More on the disk than allowed.
    #[error(
        "the activations and projections of all fits would take more than {limit} bytes of the disk (option \
         `fitting.disk`): fit fewer layers, images or components, or delete fitted projections"
    )]
    Disk {
        /// In bytes.
        limit: u64,
    },
    /// A disk without room.
    #[error("the disk of the folder for fits is full: fit fewer layers, images or components")]
    DiskFull,
    /// More memory than allowed.
    #[error(
        "layer `{layer}`: {components} components of {images} images take more memory than a fit may have, {limit} \
         bytes (option `fitting.memory`): ask for fewer components, or send fewer images"
    )]
    Memory {
        /// The layer's name.
        layer: String,
        /// How many were asked for.
        components: usize,
        /// How many came so far.
        images: usize,
        /// In bytes.
        limit: usize,
    },
    /// The client went away.
    #[error("the client is gone")]
    Cancelled,
    /// Files that can't be written or read.
    #[error("can't write or read a fit's files in {}; the option `fitting.folder` chooses another folder", folder.display())]
    File {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Eigenvalues that couldn't be found: never seen, of finite numbers.
    #[error("the eigenvalues of layer `{layer}` don't converge")]
    Eigenvalues {
        /// The layer's name.
        layer: String,
    },
}

impl FitError {
    /// What kind of error it is.
    pub fn code(&self) -> Code {
        match self {
            Self::TooFewImages { .. } | Self::NotFinite { .. } => Code::InvalidArgument,
            Self::Disk { .. } | Self::DiskFull | Self::Memory { .. } => Code::ResourceExhausted,
            // It reaches nobody, and is no fault of the server's.
            Self::Cancelled => Code::Unavailable,
            Self::File { .. } | Self::Eigenvalues { .. } => Code::Internal,
        }
    }

    /// What went wrong with the files of a fit in `folder`.
    pub(super) fn file(folder: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let folder = folder.into();
        |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::File { folder, source },
        }
    }
}

impl From<FitError> for ServerError {
    fn from(error: FitError) -> Self {
        match error.code() {
            Code::Internal => Self::Internal(InternalError::Fit(error)),
            _ => Self::Fit(error),
        }
    }
}
