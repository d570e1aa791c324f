//! Reads networks of PyTorch's: checkpoints of the authors' implementation, and torchvision's or other people's ResNets of
//! basic blocks with torchvision's names. A file (`source`) is a zip archive ([`archive`]) whose pickle ([`pickle`]) names
//! tensors, or a safetensors file. Names and shapes show the network (`infer`), which becomes a Ventral checkpoint
//! (`checkpoint`). Nothing of the pickle is run.

pub mod archive;
mod checkpoint;
mod infer;
mod options;
pub mod pickle;
mod source;
mod tensor;

pub use checkpoint::import;
pub use options::{ImportOptions, ImportPreprocessing};

pub(crate) use checkpoint::authors_shape;
pub(crate) use tensor::row_major_strides;

use std::path::PathBuf;

use thiserror::Error;

/// Why a network can't be imported.
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
    #[error(
        "neither a complete PyTorch checkpoint (a zip archive, as `torch.save` writes since PyTorch 1.6) nor a safetensors \
         file"
    )]
    Archive(#[from] zip::result::ZipError),
    /// A file without what every checkpoint has, or in another format.
    #[error("it can't be imported: {0}")]
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
    /// A safetensors file can't be read, or the finished checkpoint can't be written.
    #[error(transparent)]
    Checkpoint(#[from] model::CheckpointError),
}
