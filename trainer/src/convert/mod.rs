//! Checkpoints in other forms: in the layout of the authors' PyTorch implementation ([`authors`], a `torch_archive` with
//! its `pickle`), and convolutional networks as locally connected ones ([`local`]).

pub mod authors;
pub mod local;
mod pickle;
mod torch_archive;

use std::path::PathBuf;

use model::CheckpointError;
use thiserror::Error;

/// Why a checkpoint can't be converted.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// The checkpoint can't be read, or its converted form can't be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The converted file can't be written.
    #[error("can't write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing would become locally connected.
    #[error("the network has no convolution that would become locally connected: {reason}")]
    NothingToConvert {
        /// Why not.
        reason: String,
    },
    /// A layer that is to be a convolution has lost its common kernel already.
    #[error(
        "`{layer}` is locally connected already and can't become a convolution; at most the first {shared} convolutions can \
         stay so"
    )]
    LocalAlready {
        /// The layer.
        layer: String,
        /// Convolutions before the first locally connected layer.
        shared: usize,
    },
    /// A checkpoint of another network than the one that is wanted.
    #[error("{} holds another network: its {field} is {found}, wanted is {wanted}", path.display())]
    OtherNetwork {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// In the checkpoint.
        found: String,
        /// In the network that is wanted.
        wanted: String,
    },
    /// The network can't be built.
    #[error(transparent)]
    Architecture(#[from] model::ArchitectureError),
    /// libtorch refused the network's memory.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
}
