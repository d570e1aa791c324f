//! What every Ventral program agrees on, in memory and on disk.
//!
//! - [`Architecture`] says what a network is; [`Network`] is the same as a typed list of stages and layers with names
//!   and shapes.
//! - [`checkpoint`] is the file that training writes and everything else reads.
//! - [`class_names`] reads the names of classes from a file of the user's.
//! - [`Preprocessing`] turns stimuli into the network's input.
//! - [`Recording`] holds activations that the trainer recorded, for exporters to be checked against.
//! - [`Manifest`] is what an exported bundle says about itself, [`Verification`] how it was proved.
//!
//! The crate links no native library, so that serving hosts need none of the trainer's.

pub mod architecture;
pub mod checkpoint;
pub mod class_names;
#[cfg(feature = "images")]
pub mod image;
pub mod layer;
pub mod manifest;
mod mapped_file;
pub mod network;
pub mod preprocessing;
pub mod recording;
pub mod verification;

pub use architecture::{Architecture, ArchitectureError, Connectivity, InputShape, Stem};
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointHeader};
pub use layer::{Layer, LayerKind};
pub use manifest::{Manifest, WeightType};
pub use mapped_file::MappedFile;
pub use network::{Block, Convolution, ConvolutionUnit, Network, Stage};
pub use preprocessing::{ColorMode, Preprocessing, Resize};
pub use recording::Recording;
pub use verification::Verification;
