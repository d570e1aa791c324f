//! Serves a repository of exported networks: activations over gRPC, classification over HTTP.
//!
//! The modules in the order in which a request meets them:
//! - [`server`] binds the ports and runs both protocols until [`shutdown`] says stop, as the [`config`]uration says;
//! - [`front`] meets every request of both protocols: it is admitted or refused by [`security`], counted, logged and
//!   traced by [`telemetry`];
//! - [`grpc`] and [`http`] translate requests and answers, and nothing else;
//! - [`state`] is what they share: the [`repository`] of [`bundle`]s, which changes while it is served, and the
//!   [`inference`];
//! - [`inference`] is the one place that computes: it has [`stimuli`] decoded and preprocessed, and has batches of them,
//!   formed as [`scheduling`] says and within the [`limits`], computed by a [`session`] of a [`session_pool`] from the
//!   [`session_cache`], whose [`pace`] says how long others will wait, and projected by a [`projection`] where a request
//!   says so;
//! - [`fitting`] makes projections: the principal components of what [`inference`] computes for many images;
//! - a session's graph is [`cut`] to the requested layers, its weights stay mapped from the bundle's files, which
//!   [`external_data`] checks and [`weight_files`] holds;
//! - [`onnx_runtime`] finds and loads the native library, [`provider`] chooses what computes, in
//!   [`half_precision`] if asked to.

pub mod bundle;
pub mod classification;
pub mod cli;
pub mod config;
pub mod cut;
pub mod error;
pub mod external_data;
pub mod fitting;
pub mod front;
pub mod grpc;
pub mod half_precision;
pub mod http;
pub mod inference;
pub mod limits;
pub mod oip;
pub mod onnx_runtime;
pub mod pace;
pub mod projection;
pub mod provider;
pub mod repository;
pub mod scheduling;
pub mod security;
pub mod server;
pub mod session;
pub mod session_cache;
pub mod session_pool;
pub mod shutdown;
pub mod state;
pub mod stimuli;
pub mod telemetry;
pub mod tensor_inference;
mod unread;
pub mod weight_files;

pub use config::Config;
pub use error::ServerError;
pub use limits::Limits;
pub use provider::ProviderChoice;
pub use repository::{RepositoryOptions, WarmUp};
pub use scheduling::Scheduling;
pub use server::{Server, StartError};
