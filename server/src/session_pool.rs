//! The sessions of one bundle for the same layers, of which each computes another batch, and the requests that they
//! accept.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::bundle::Bundle;
use crate::error::ServerError;
use crate::pace::Pace;
use crate::session::Session;

/// The longest time that a client is asked to wait.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The sessions of one bundle for the same layers.
#[derive(Debug)]
pub struct SessionPool {
    bundle: Arc<Bundle>,
    layers: Vec<usize>,
    /// Locked while they compute.
    sessions: Vec<Arc<Mutex<Session>>>,
    /// A permit for every request that may still come in.
    requests: Arc<Semaphore>,
    queue_length: usize,
    pace: Pace,
}

/// A session that is this caller's until it is dropped.
pub type Lease = OwnedMutexGuard<Session>;

impl SessionPool {
    /// A pool of sessions for `layers`, positions in the manifest's list, sorted, each once.
    pub fn new(bundle: Arc<Bundle>, layers: Vec<usize>, sessions: Vec<Session>, queue_length: usize) -> Self {
        Self {
            bundle,
            layers,
            sessions: sessions
                .into_iter()
                .map(|session| Arc::new(Mutex::new(session)))
                .collect(),
            requests: Arc::new(Semaphore::new(queue_length.min(Semaphore::MAX_PERMITS))),
            queue_length,
            pace: Pace::default(),
        }
    }

    /// What the sessions compute.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// Positions in the manifest's list, sorted, each once.
    pub fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// A place for a request, which is free again when it is dropped.
    ///
    /// # Errors
    /// [`ServerError::Busy`] where all places are taken.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, ServerError> {
        let place = Arc::clone(&self.requests).try_acquire_owned();
        place.map_err(|_| self.busy(&format!("{} requests wait for", self.queue_length)))
    }

    /// The error that more than may be is already so.
    pub fn busy(&self, what: &str) -> ServerError {
        let Bundle { model, version, .. } = &*self.bundle;
        ServerError::Busy {
            what: format!("{what} model `{model}` version {version} at this depth, the most that may be"),
            retry_after: self.retry_after(),
        }
    }

    /// Whether a session computes nothing.
    pub fn has_idle(&self) -> bool {
        self.sessions.iter().any(|session| session.try_lock().is_ok())
    }

    /// A session that computes nothing, if there is one.
    pub fn lease(&self) -> Option<Lease> {
        let mut sessions = self.sessions.iter();
        sessions.find_map(|session| Arc::clone(session).try_lock_owned().ok())
    }

    /// How fast the sessions have computed lately.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// How long something that comes behind so many images will wait.
    pub fn wait_behind(&self, images: usize) -> Duration {
        self.pace.time_for_images(images) / u32::try_from(self.sessions.len().max(1)).unwrap_or(u32::MAX)
    }

    /// When half of the requests that wait now will have been computed, roughly; at least a second, since that is the
    /// unit of HTTP's header.
    fn retry_after(&self) -> Duration {
        let half = (self.queue_length / 2).max(1);
        let time = self.pace.time_for_requests(half);
        time.clamp(Duration::from_secs(1), LONGEST_RETRY)
    }
}
