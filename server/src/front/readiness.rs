//! Whether the server wants requests: not before the models are loaded, not once it was asked to stop.

use tokio::sync::watch;

use crate::error::ServerError;

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Models are being loaded.
    Loading,
    /// Requests are welcome.
    Serving,
    /// It was asked to stop: it answers still, but sends no one here any more.
    Draining,
    /// The ports are closed, running requests may finish.
    Closed,
}

/// The phase, which can be watched.
#[derive(Debug)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
}

impl Readiness {
    pub(super) fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Loading),
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Says why the server doesn't want requests, if so.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] before the models are loaded, [`ServerError::Draining`] once it was asked to stop.
    pub fn check(&self) -> Result<(), ServerError> {
        match self.phase() {
            Phase::Loading => Err(ServerError::NotReady),
            Phase::Serving => Ok(()),
            Phase::Draining | Phase::Closed => Err(ServerError::Draining),
        }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Sees the phase change.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Ends once a phase is entered that `wanted` accepts.
    pub async fn wait(&self, wanted: impl FnMut(&Phase) -> bool) {
        // The sender is this value's own: it can't be gone.
        let _ = self.phase.subscribe().wait_for(wanted).await;
    }
}
