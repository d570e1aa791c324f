//! Trains locally connected and convolutional networks with libtorch, on CPU or CUDA.
//!
//! The path of the data: [`data`] → [`network`] → [`training`] (AdamW, sleep phase, checkpoints) → [`recording`];
//! [`import`] brings in checkpoints of the authors' PyTorch implementation.

pub mod cli;
mod commands;
pub mod data;
pub mod device;
pub mod import;
pub mod network;
pub mod recording;
pub mod training;
