//! Lets go of answers that their clients leave unread.
//!
//! A body is asked for its next piece once the connection has room for it. A client that never makes room would keep its
//! place among the requests, and the memory of its answer, as long as its connection lasts.

use std::cell::RefCell;
use std::error::Error;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody};
use actix_web::rt;
use actix_web::rt::task::JoinHandle;
use bytes::Bytes;
use thiserror::Error;

/// A body that is dropped with all that it holds once it has been left unread for a time. Who asks for it later gets an
/// error, which ends the connection.
pub(super) struct Unread<B> {
    held: Rc<RefCell<Held<B>>>,
    size: BodySize,
    limit: Duration,
    watch: JoinHandle<()>,
}

struct Held<B> {
    body: Option<Pin<Box<B>>>,
    /// Since when the client could have asked for more; nothing while the server itself makes it wait.
    since: Option<Instant>,
}

/// An answer that is no longer there.
#[derive(Debug, Error)]
#[error("the answer was left unread for {} s", .0.as_secs_f64())]
struct LeftUnread(Duration);

impl<B: MessageBody + 'static> Unread<B> {
    /// Begins to watch a body; needs a worker of the HTTP server.
    pub(super) fn new(body: B, limit: Duration) -> Self {
        let size = body.size();
        let held = Rc::new(RefCell::new(Held {
            body: Some(Box::pin(body)),
            since: Some(Instant::now()),
        }));
        let watch = rt::spawn(watch(Rc::downgrade(&held), limit));
        Self {
            held,
            size,
            limit,
            watch,
        }
    }
}

async fn watch<B>(held: Weak<RefCell<Held<B>>>, limit: Duration) {
    let mut wait = limit;
    loop {
        rt::time::sleep(wait).await;
        let Some(held) = held.upgrade() else {
            return;
        };
        let since = held.borrow().since;
        let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
        if waited >= limit {
            let body = held.borrow_mut().body.take();
            drop(body);
            tracing::info!("an answer was left unread for {} s", limit.as_secs_f64());
            return;
        }
        wait = limit - waited;
    }
}

impl<B: MessageBody> MessageBody for Unread<B> {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let mut held = self.held.borrow_mut();
        let Some(body) = &mut held.body else {
            return Poll::Ready(Some(Err(LeftUnread(self.limit).into())));
        };
        let polled = body.as_mut().poll_next(context);
        held.since = polled.is_ready().then(Instant::now);
        polled.map_err(Into::into)
    }
}

impl<B> Drop for Unread<B> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
