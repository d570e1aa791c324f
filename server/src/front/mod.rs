//! What happens to every request whatever it asks for, in both protocols: it gets an identifier, is admitted or refused,
//! counted, timed, logged and traced. [`http`](crate::http) and [`grpc`](crate::grpc) each have a layer that calls this.
//!
//! - [`call`] is what handlers learn of a request besides its message;
//! - [`running`] is a request from its head to the last byte of its answer;
//! - [`readiness`] says whether the server wants requests.

pub mod call;
pub mod readiness;
pub mod running;

use std::sync::Arc;

use crate::security::access::{Access, Refusal};
use crate::security::rules::Need;
use crate::telemetry::metrics::Protocol;
use call::Call;
use readiness::Readiness;
use running::Running;

/// The header that a request's identifier comes and goes in.
pub const REQUEST_ID: &str = "x-request-id";

/// What both protocols' layers share.
pub struct Front {
    access: Access,
    /// Whether the server wants requests.
    pub readiness: Readiness,
}

/// A request's head.
#[derive(Clone, Copy)]
pub struct Head<'a, F> {
    /// What it came by.
    pub protocol: Protocol,
    /// Its path, for the log.
    pub path: &'a str,
    /// What it needs.
    pub need: Need,
    /// Gives a header's value, if there is one and it is text.
    pub header: F,
}

impl Front {
    /// A server that isn't ready yet.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            readiness: Readiness::new(),
        }
    }

    /// Begins a request: it is counted from now on, and admitted or refused.
    pub fn begin<'a, F>(&self, head: &Head<'_, F>) -> (Running, Result<Arc<Call>, Refusal>)
    where
        F: Fn(&str) -> Option<&'a str>,
    {
        let mut running = Running::begin(head);
        let admitted = self.access.admit(head.need, (head.header)("authorization"));
        let call = admitted.map(|caller| running.admitted(caller));
        (running, call)
    }
}
