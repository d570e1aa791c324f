//! Trains locally connected and convolutional networks with libtorch, on CPU or CUDA.
//!
//! The path of the data: [`data`] → [`network`] → [`training`] (optimiser, sleep phase, checkpoints) → [`recording`];
//! [`engine`] computes what has to be fast; [`import`] brings in networks of PyTorch's and [`convert`] brings
//! ours back; [`probe`] reads classes out of any layer; [`tensorboard`] writes what TensorBoard shows;
//! [`plan`] says what a run will need before it begins; [`dynamics`] simulates neurons that share weights through lateral inhibition.

pub mod cli;
mod commands;
pub mod convert;
pub mod data;
pub mod device;
pub mod dynamics;
pub mod engine;
pub mod import;
mod memory;
pub mod network;
pub mod plan;
pub mod plot;
pub mod precision;
pub mod presets;
pub mod probe;
pub mod recording;
pub mod run;
pub mod sweep;
pub mod tensorboard;
pub mod training;
