//! The model repository: `REPOSITORY/<model>/<version>/model.onnx`, versions being whole numbers from 1.
//!
//! - `discovery` finds the bundles' folders and tells when one was replaced;
//! - `loading` reads a bundle, has its session made and warms it up;
//! - `catalogue` knows every bundle's state, and which one answers a request;
//! - `models` answers requests for bundles, and has the catalogue changed: at start, when the `watch` finds a difference,
//!   when a client says so, and when a request needs what isn't in memory;
//! - `changes` are those, one at a time;
//! - `memory` measures what a bundle takes.
//!
//! A request holds its bundle, and a bundle's sessions live as long as someone holds them: whatever is unloaded or
//! replaced, running requests end with what they began with.

mod catalogue;
mod changes;
mod discovery;
mod error;
mod loading;
pub mod memory;
mod models;
mod options;
mod watch;

pub use catalogue::{BundleState, IndexEntry, Loaded};
pub use error::{BrokenBundle, BrokenBundleReason, RepositoryError};
pub use models::ModelRepository;
pub use options::{RepositoryOptions, WarmUp};
pub use watch::Watch;
