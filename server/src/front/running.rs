//! A request from its head to the last byte of its answer. Dropping it ends it, so that what a client gives up is
//! counted too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{Status, TraceContextExt as _};
use tracing::field::Empty;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::call::Call;
use super::{Head, REQUEST_ID};
use crate::security::access::Caller;
use crate::telemetry::metrics::{Answered, Protocol, Stage, metrics};
use crate::telemetry::traces;

/// Longest identifier that is taken over from a client.
const LONGEST_ID: usize = 128;

/// A request that is being answered.
pub struct Running {
    protocol: Protocol,
    id: Arc<str>,
    span: Span,
    began: Instant,
    call: Option<Arc<Call>>,
    method: Option<String>,
    status: Option<String>,
    failed: bool,
    received: Arc<AtomicU64>,
    sent: u64,
    /// How long writing the answer has taken.
    serialise: Duration,
}

impl Running {
    pub(super) fn begin<'a, F>(head: &Head<'_, F>) -> Self
    where
        F: Fn(&str) -> Option<&'a str>,
    {
        metrics().request_began(head.protocol);
        let id: Arc<str> = (head.header)(REQUEST_ID)
            .filter(|id| is_usable(id))
            .map_or_else(new_id, Arc::from);
        let span = tracing::info_span!(
            "request",
            "otel.kind" = "server",
            protocol = head.protocol.name(),
            path = head.path,
            id = &*id,
            trace = Empty,
            caller = Empty,
            model = Empty,
            status = Empty,
        );
        if let Some(context) = traces::context(&head.header) {
            span.record("trace", traces::trace_id(&context));
            // It fails where no spans are exported, and the log has the trace's identifier all the same.
            let _ = span.set_parent(context);
        }
        Self {
            protocol: head.protocol,
            id,
            span,
            began: Instant::now(),
            call: None,
            method: None,
            status: None,
            failed: false,
            received: Arc::default(),
            sent: 0,
            serialise: Duration::ZERO,
        }
    }

    /// The request's call, for its handler.
    pub(super) fn admitted(&mut self, caller: Caller) -> Arc<Call> {
        if let Some(name) = caller.name() {
            self.span.record("caller", name);
        }
        let call = Arc::new(Call::new(Arc::clone(&self.id), caller));
        self.call = Some(Arc::clone(&call));
        call
    }

    /// The identifier, for the answer.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the handler is to run in.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Counts the bytes of the request's body.
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Which of the server's methods answers; none where there is none.
    pub fn set_method(&mut self, method: Option<String>) {
        self.method = method;
    }

    /// What the answer says. `failed`: it is the server's own fault.
    pub fn set_status(&mut self, status: &str, failed: bool) {
        self.status = Some(status.into());
        self.failed = failed;
    }

    /// Some of the answer has been handed over, which took a time to write.
    pub fn sent(&mut self, bytes: u64, time: Duration) {
        self.sent += bytes;
        self.serialise += time;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let call = self.call.as_deref();
        let model = call.and_then(Call::model);
        let status = self.status.as_deref().unwrap_or("CANCELLED");
        let time = self.began.elapsed();
        let received = self.received.load(Ordering::Relaxed);
        metrics().request_ended(Answered {
            protocol: self.protocol,
            method: self.method.as_deref(),
            model,
            status,
            time,
            received,
            sent: self.sent,
        });
        if let Some(model) = model {
            metrics().observe_stage(model, Stage::Serialise, self.serialise);
            self.span.record("model", model);
        }
        // Not the path, of which there is any number.
        let method = self.method.as_deref().unwrap_or("other");
        self.span.context().span().update_name(method.to_owned());
        self.span.record("status", status);
        if self.failed {
            self.span.set_status(Status::error(status.to_owned()));
        }
        let _inside = self.span.enter();
        let milliseconds = time.as_secs_f64() * 1e3;
        if self.failed {
            tracing::event!(
                Level::WARN,
                method,
                milliseconds,
                received,
                sent = self.sent,
                "failed"
            );
        } else {
            tracing::event!(
                Level::DEBUG,
                method,
                milliseconds,
                received,
                sent = self.sent,
                "answered"
            );
        }
    }
}

/// Whether an identifier of a client's can stand in logs and headers.
fn is_usable(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An identifier that no other request has: random for each process, then counted.
fn new_id() -> Arc<str> {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::LazyLock;

    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}-{count:x}", *PROCESS).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_clients_are_taken_where_they_are_harmless() {
        for id in ["a", "0af7651916cd43dd8448eb211c80319c", &"x".repeat(LONGEST_ID)] {
            assert!(is_usable(id), "{id}");
        }
        for id in ["", "two words", "line\n", "ü", &"x".repeat(LONGEST_ID + 1)] {
            assert!(!is_usable(id), "{id}");
        }
        assert_ne!(new_id(), new_id());
        assert!(is_usable(&new_id()));
    }
}
