//! The Open Inference Protocol, version 2: what its gRPC and its REST form share. Both translate their messages into
//! these and back, and nothing else.
//!
//! - [`infer`] answers requests;
//! - [`metadata`] says what the server and its models are;
//! - [`statistics`] counts what was answered;
//! - [`admission`] refuses what clients may ask of other servers and not of this one.

pub mod admission;
pub mod infer;
pub mod metadata;
pub mod statistics;
pub mod urgency;

/// The one element type of inputs and outputs.
pub const DATATYPE: &str = "FP32";
