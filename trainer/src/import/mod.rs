//! Reads checkpoints of the authors' PyTorch implementation: a zip archive ([`archive`]) whose pickle ([`pickle`]) names
//! tensors, which become a Ventral checkpoint ([`authors`]). Nothing of the pickle is run.

pub mod archive;
pub mod authors;
mod infer;
pub mod pickle;

use std::path::PathBuf;

use thiserror::Error;

/// Why a PyTorch checkpoint can't be imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// An error with the file that it is about.
    #[error("{}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<ImportError>,
    },
    /// The operating system refused.
    #[error("can't read the file")]
    Io(#[from] std::io::Error),
    /// Not a zip archive, or a truncated or damaged one.
    #[error("not a complete PyTorch checkpoint (a zip archive, as `torch.save` writes since PyTorch 1.6)")]
    Archive(#[from] zip::result::ZipError),
    /// An archive without what every checkpoint has.
    #[error("not a PyTorch checkpoint: {0}")]
    Layout(String),
    /// The pickle can't be read.
    #[error("the checkpoint's pickle can't be read")]
    Pickle(#[from] pickle::PickleError),
    /// The pickle is read, but it isn't the checkpoint of a known network.
    #[error("{0}")]
    Network(String),
    /// The architecture that the tensors show can't be built.
    #[error("the checkpoint's network can't be built")]
    Architecture(#[from] model::ArchitectureError),
    /// The finished checkpoint can't be written.
    #[error(transparent)]
    Checkpoint(#[from] model::CheckpointError),
}
