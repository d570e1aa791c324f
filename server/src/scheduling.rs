//! How work is scheduled: how large batches become, how long they wait for company, how many are computed at a time.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Batches that are computed at a time at most, unless told otherwise: more would share the same cores and only take
/// more memory.
const CONCURRENT_RUNS: usize = 4;

/// How work is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Images that the network computes at a time at most. Larger requests are split, smaller ones share a batch.
    pub maximum_batch: NonZeroUsize,
    /// How long a batch waits for company before it is computed; a full one doesn't wait. With 0, a batch is what has come
    /// in while the one before it was computed.
    pub maximum_delay: Duration,
    /// No request is accepted that would wait longer than this for the network at its depth, to judge by what waits and how
    /// long computing has taken lately; of bulk requests, none behind one that has waited longer. It bounds what a request
    /// waits at most when more come than can be computed. Streams are accepted all the same: they wait for themselves.
    pub maximum_wait: Duration,
    /// Sessions of every network and depth, which compute different batches at the same time. They share their weights
    /// and their threads.
    pub instances: NonZeroUsize,
    /// Networks and depths whose sessions are kept; the least recently used ones make room for new ones.
    pub kept_sessions: NonZeroUsize,
    /// Batches of all networks that are computed at a time; without it, as many as there are threads, but at most 4.
    pub concurrent_runs: Option<NonZeroUsize>,
}

impl Scheduling {
    /// Batches that are computed at a time where `parallelism` threads compute.
    pub fn runs(&self, parallelism: usize) -> usize {
        self.concurrent_runs
            .map_or(parallelism.clamp(1, CONCURRENT_RUNS), NonZeroUsize::get)
    }
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            maximum_batch: NonZeroUsize::MIN.saturating_add(63),
            maximum_delay: Duration::ZERO,
            maximum_wait: Duration::from_secs(30),
            instances: NonZeroUsize::MIN,
            kept_sessions: NonZeroUsize::MIN.saturating_add(7),
            concurrent_runs: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_batches_run_than_there_are_threads() {
        let scheduling = Scheduling::default();
        assert_eq!([1, 2, 64].map(|threads| scheduling.runs(threads)), [1, 2, 4]);
    }
}
