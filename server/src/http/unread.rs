//! The bodies of HTTP that are watched for being left unread.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::unread::Unread;

/// A watched body, whose size is known also when it was dropped. Who asks for it then gets an error, which ends the
/// connection.
pub(super) struct UnreadBody<B> {
    body: Unread<B>,
    size: BodySize,
}

impl<B: MessageBody + 'static> UnreadBody<B> {
    /// Begins to watch a body; needs a worker of the HTTP server.
    pub(super) fn new(body: B, limit: Duration) -> Self {
        let size = body.size();
        Self {
            body: Unread::new_local(body, limit),
            size,
        }
    }
}

impl<B: MessageBody> MessageBody for UnreadBody<B> {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match self.body.poll(|body| body.poll_next(context)) {
            Ok(polled) => polled.map_err(Into::into),
            Err(left) => Poll::Ready(Some(Err(left.into()))),
        }
    }
}
