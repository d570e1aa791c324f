//! How often each bundle was asked through the Open Inference Protocol, and how long the answers took.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::ServerError;
use crate::inference::Timings;
use crate::state::State;

/// Of all bundles.
#[derive(Debug, Default)]
pub struct Statistics {
    by_version: Mutex<BTreeMap<(String, u64), BundleStatistics>>,
}

/// Of one bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleStatistics {
    /// Milliseconds since 1970 at the end of the last request.
    pub last_inference: u64,
    /// Images of the requests that succeeded.
    pub images: u64,
    /// Batches in which they were computed; one that several requests shared counts for each of them.
    pub batches: u64,
    /// Requests that succeeded.
    pub success: Total,
    /// Requests that failed.
    pub fail: Total,
    /// Of those that succeeded: waiting for a batch.
    pub queue: Total,
    /// Of those that succeeded: turning elements into the network's input.
    pub decode: Total,
    /// Of those that succeeded: the network's computation.
    pub compute: Total,
    /// Of those that succeeded: taking their activations out of the batches.
    pub reduce: Total,
}

/// How often something happened, and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// How long.
    pub nanoseconds: u64,
}

impl Total {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
    }
}

impl Statistics {
    /// Counts a request; of one that succeeded, its images and what its time went into.
    pub(super) fn record(
        &self,
        model: &str,
        version: u64,
        succeeded: Option<(u64, Timings)>,
        duration: Duration,
    ) {
        let mut by_version = self.by_version.lock().unwrap_or_else(PoisonError::into_inner);
        let statistics = by_version.entry((model.into(), version)).or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        statistics.last_inference = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let Some((images, timings)) = succeeded else {
            statistics.fail.add(duration);
            return;
        };
        statistics.images += images;
        statistics.batches += timings.batches as u64;
        statistics.success.add(duration);
        statistics.queue.add(timings.queue);
        statistics.decode.add(timings.decode);
        statistics.compute.add(timings.compute);
        statistics.reduce.add(timings.serialise);
    }

    /// Of one bundle.
    fn of(&self, model: &str, version: u64) -> BundleStatistics {
        let by_version = self.by_version.lock().unwrap_or_else(PoisonError::into_inner);
        by_version
            .get(&(model.into(), version))
            .copied()
            .unwrap_or_default()
    }
}

/// A bundle that is served, with its statistics.
pub struct Entry {
    /// The model's name.
    pub model: String,
    /// The version.
    pub version: u64,
    /// Bytes of its weights, while it is loaded.
    pub weight_bytes: Option<u64>,
    /// What was counted.
    pub statistics: BundleStatistics,
}

/// Statistics of the bundles that are served: of all, of all versions of a model, or of one.
///
/// # Errors
/// [`ServerError::ModelNotFound`] and [`ServerError::VersionNotFound`].
pub fn entries(state: &State, model: &str, version: &str) -> Result<Vec<Entry>, ServerError> {
    let repository = state.repository()?;
    if !model.is_empty() {
        repository.is_ready(model, version)?;
    }
    let served = repository.served();
    let asked_for = served.filter(|entry| {
        (model.is_empty() || entry.model == model)
            && (version.is_empty() || entry.version.to_string() == version)
    });
    let entries = asked_for.map(|entry| Entry {
        statistics: state.statistics.of(&entry.model, entry.version),
        weight_bytes: entry.loaded.map(|loaded| loaded.bundle.weight_bytes()),
        model: entry.model,
        version: entry.version,
    });
    Ok(entries.collect())
}
