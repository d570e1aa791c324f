//! How a model repository is to be kept.

use std::time::Duration;

use clap::ValueEnum;

/// How a model repository is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepositoryOptions {
    /// How often to look for bundles that have appeared, were replaced or removed; without it, the repository is read at
    /// start and when a client asks for it. Above 0.
    pub poll_interval: Option<Duration>,
    /// Bytes that the weights of all loaded bundles may take together: the least recently used ones are unloaded, and
    /// loaded again when they are asked for. Without it, there is no limit.
    pub memory_limit: Option<u64>,
    /// What is done with a bundle before it is served.
    pub warm_up: WarmUp,
}

/// What is done with a bundle before it is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WarmUp {
    /// Nothing: the first request waits for what it needs.
    None,
    /// One forward pass of zeros to the readout.
    #[default]
    Forward,
    /// All weights are brought into memory, then the forward pass.
    Pages,
}
