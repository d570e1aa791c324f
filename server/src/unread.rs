//! Lets go of answers that their clients leave unread.
//!
//! A connection asks a body for its next piece once it has room for it: over HTTP/1.1 its own, over HTTP/2 also the client's. A
//! client that never makes room would keep its place among the requests, and the memory of its answer, as long as its
//! connection lasts. gRPC and HTTP have bodies of different kinds; what watches them is this.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio_util::task::AbortOnDropHandle;

/// A body that is dropped with all that it holds once it has been left unread for a time.
pub(crate) struct Unread<B> {
    held: Arc<Mutex<Held<B>>>,
    limit: Duration,
    /// Ends with the body.
    _watch: AbortOnDropHandle<()>,
}

/// An answer that is no longer there.
#[derive(Debug, Error)]
#[error("the answer was left unread for {} s", .0.as_secs_f64())]
pub(crate) struct LeftUnread(Duration);

struct Held<B> {
    body: Option<Pin<Box<B>>>,
    /// Since when the client could have asked for more; nothing while the server itself makes it wait.
    since: Option<Instant>,
}

impl<B> Unread<B> {
    /// Begins to watch a body; needs a tokio runtime.
    pub(crate) fn new(body: B, limit: Duration) -> Self
    where
        B: Send + 'static,
    {
        let held = Held::new(body);
        let watch = tokio::spawn(watch(Arc::downgrade(&held), limit));
        Self::watched(held, limit, watch)
    }

    /// Begins to watch a body that stays on its thread; needs a worker of the HTTP server.
    pub(crate) fn new_local(body: B, limit: Duration) -> Self
    where
        B: 'static,
    {
        let held = Held::new(body);
        let watch = tokio::task::spawn_local(watch(Arc::downgrade(&held), limit));
        Self::watched(held, limit, watch)
    }

    fn watched(held: Arc<Mutex<Held<B>>>, limit: Duration, watch: tokio::task::JoinHandle<()>) -> Self {
        Self {
            held,
            limit,
            _watch: AbortOnDropHandle::new(watch),
        }
    }

    /// Asks the body for its next piece.
    ///
    /// # Errors
    /// [`LeftUnread`] where it was dropped.
    pub(crate) fn poll<T>(&self, poll: impl FnOnce(Pin<&mut B>) -> Poll<T>) -> Result<Poll<T>, LeftUnread> {
        let mut held = lock(&self.held);
        let body = held.body.as_mut().ok_or(LeftUnread(self.limit))?;
        let polled = poll(body.as_mut());
        held.since = polled.is_ready().then(Instant::now);
        Ok(polled)
    }

    /// What the body says of itself; nothing where it was dropped.
    pub(crate) fn about<T>(&self, of: impl FnOnce(&B) -> T) -> Option<T> {
        lock(&self.held).body.as_deref().map(of)
    }
}

impl<B> Held<B> {
    fn new(body: B) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            body: Some(Box::pin(body)),
            since: Some(Instant::now()),
        }))
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
            tracing::info!("an answer was left unread for {} s", limit.as_secs_f64());
            return;
        }
        wait = limit - waited;
    }
}

fn lock<B>(held: &Mutex<Held<B>>) -> MutexGuard<'_, Held<B>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
