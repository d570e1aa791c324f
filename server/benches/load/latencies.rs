//! How long requests took.

use std::time::Duration;

use crate::print;

/// Times of requests, in no order.
#[derive(Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Prints median and 99th percentile, if there is anything; names begin with `prefix`.
    pub(super) fn print(&mut self, prefix: &str) {
        self.0.sort_unstable();
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            if let Some(time) = self.percentile(share) {
                print(&format!("{prefix}{name}"), time.as_secs_f64(), "s");
            }
        }
    }

    /// The smallest time that a share of all are no longer than.
    fn percentile(&self, share: f64) -> Option<Duration> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }
}
