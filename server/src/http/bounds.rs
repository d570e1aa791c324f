//! What bounds every request: how many there are at a time, and how long each may take.
//!
//! A request counts until its answer is sent, its client is gone, or has left the answer unread for too long; so does the
//! memory of its answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::unread::UnreadBody;
use crate::error::ServerError;
use crate::state::State;

/// Requests that are not counted: whether the server is well must be known when it is busy, too.
const UNCOUNTED: [&str; 7] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/v2/health/live",
    "/v2/health/ready",
];

/// An answer that counts until it is sent.
pub(super) struct CountedBody<B> {
    body: Pin<Box<B>>,
    _place: Option<OwnedSemaphorePermit>,
}

/// Bounds one request.
pub(super) async fn bound<B: MessageBody + 'static>(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<UnreadBody<CountedBody<B>>>, Error> {
    let path = request.match_info().as_str().to_owned();
    let place = if UNCOUNTED.contains(&path.as_str()) {
        None
    } else {
        let place = state.inference.enter();
        Some(place.map_err(|error| super::error(&path, error))?)
    };
    // Reading the body is a part of it: a client that sends slowly keeps its place no longer than others.
    let response = tokio::time::timeout(state.limits.time, next.call(request)).await;
    let response = response.map_err(|_| super::error(&path, ServerError::DeadlineExceeded))??;
    let counted = |body| CountedBody {
        body: Box::pin(body),
        _place: place,
    };
    Ok(response.map_body(|_, body| UnreadBody::new(counted(body), state.limits.unread)))
}

impl<B: MessageBody> MessageBody for CountedBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        self.body.as_mut().poll_next(context)
    }
}
