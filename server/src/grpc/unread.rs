//! Lets go of answers that their clients leave unread.
//!
//! HTTP/2 asks a body for its next piece once the client has room for it. A client that never makes room would keep its
//! place among the requests, and the memory of its answer, as long as its connection lasts.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

/// A body that is dropped with all that it holds once it has been left unread for a time. Who asks for it later gets an
/// error.
pub(super) struct Unread<B> {
    held: Arc<Mutex<Held<B>>>,
    limit: Duration,
    /// Ends with the body.
    _watch: AbortOnDropHandle<()>,
}

struct Held<B> {
    body: Option<Pin<Box<B>>>,
    /// Since when the client could have asked for more; nothing while the server itself makes it wait.
    since: Option<Instant>,
}

impl<B: Send + 'static> Unread<B> {
    /// Begins to watch a body; needs a tokio runtime.
    pub(super) fn new(body: B, limit: Duration) -> Self {
        let held = Arc::new(Mutex::new(Held {
            body: Some(Box::pin(body)),
            since: Some(Instant::now()),
        }));
        let watch = tokio::spawn(watch(Arc::downgrade(&held), limit));
        Self {
            held,
            limit,
            _watch: AbortOnDropHandle::new(watch),
        }
    }
}

async fn watch<B>(held: Weak<Mutex<Held<B>>>, limit: Duration) {
    let mut wait = limit;
    loop {
        tokio::time::sleep(wait).await;
        let Some(held) = held.upgrade() else {
            return;
        };
        let mut locked = lock(&held);
        let waited = locked.since.map_or(Duration::ZERO, |since| since.elapsed());
        if waited >= limit {
            let body = locked.body.take();
            drop(locked);
            drop(body);
            tracing::info!("an answer was left unread for {} s", limit.as_secs());
            return;
        }
        wait = limit - waited;
    }
}

fn lock<B>(held: &Mutex<Held<B>>) -> MutexGuard<'_, Held<B>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B: Body<Data = Bytes, Error = Status>> Body for Unread<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut held = lock(&self.held);
        let Some(body) = &mut held.body else {
            let message = format!("the answer was left unread for {} s", self.limit.as_secs());
            return Poll::Ready(Some(Err(Status::deadline_exceeded(message))));
        };
        let polled = body.as_mut().poll_frame(context);
        held.since = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        let held = lock(&self.held);
        held.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held = lock(&self.held);
        held.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
