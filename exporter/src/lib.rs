//! Lowers Ventral's checkpoints to ONNX bundles and proves them against recorded activations.
//!
//! [`export`](export::export): checkpoint → lowering (a graph in the position-major layout, BatchNorm folded) →
//! [`bundle`] (`model.onnx` + `model.onnx.data`, published by renaming). [`verify`](verify::verify): bundle → tract, an
//! ONNX implementation that the serving side doesn't use → comparison with the trainer's activations, layer by layer.
//! [`inspect`](inspect::inspect): bundle → what it is, for people and programs.
//!
//! The crate links no native library.

pub mod bundle;
pub mod cli;
mod commands;
pub mod error;
pub mod export;
pub mod inspect;
mod lowering;
pub mod selection;
pub mod verify;
mod weights;

pub use error::{BundleError, ExportError, VerifyError};
