//! The bodies of gRPC that are watched for being left unread.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::unread::Unread;

/// Who asks for a body that was dropped gets an error.
impl<B: Body<Data = Bytes, Error = Status>> Body for Unread<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.poll(|body| body.poll_frame(context))
            .unwrap_or_else(|error| Poll::Ready(Some(Err(Status::deadline_exceeded(error.to_string())))))
    }

    fn is_end_stream(&self) -> bool {
        self.about(Body::is_end_stream).unwrap_or(false)
    }

    fn size_hint(&self) -> SizeHint {
        self.about(Body::size_hint).unwrap_or_default()
    }
}
