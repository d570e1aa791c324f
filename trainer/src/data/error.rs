//! Why a data set can't be used.

use std::path::PathBuf;

use model::image::ImageError;
use model::preprocessing::PreprocessingError;
use tch::TchError;
use thiserror::Error;

/// Why a data set can't be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without the files that are expected.
    #[error(
        "{} holds no data set in IDX format: neither {stem} nor {stem}.gz is there (expected are \
         train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte)",
        folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        stem: &'static str,
    },
    /// A file that isn't what its name says.
    #[error("{name} is not a valid {format} file: {reason}")]
    Invalid {
        /// The file.
        name: String,
        /// What it should be.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Files that don't belong together.
    #[error("{0}")]
    Inconsistent(String),
    /// An image that can't be decoded, or can't be brought to the network's input size.
    #[error("can't use the image {name}")]
    Image {
        /// The file, or the number of the image and where it lies.
        name: String,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// More images were to be held out than there are.
    #[error("{wanted} images can't be held out of {images}: fewer than 2 would be left to train on")]
    HeldOut {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        images: usize,
    },
    /// An augmentation that can't be carried out.
    #[error(transparent)]
    Augmentation(#[from] super::AugmentationError),
    /// The preprocessing doesn't fit the images.
    #[error(transparent)]
    Preprocessing(#[from] PreprocessingError),
    /// A worker ended without giving its images.
    #[error("a worker that decodes images has failed")]
    Worker,
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
}
