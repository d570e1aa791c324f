//! What bounds every call: how many there are at a time, and when each has to be done.
//!
//! A call counts until its answer is sent, its client is gone, or has left the answer unread for too long; so does the
//! memory of its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::ServerError;
use crate::inference::Reservation;
use crate::state::State;
use crate::unread::Unread;

/// The header with which a client says how long it waits.
const TIMEOUT: &str = "grpc-timeout";

/// Calls that are not counted: whether the server is well must be known when it is busy, too.
const UNCOUNTED: [&str; 3] = [
    "/grpc.health.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/Server",
];

/// When a call has to be done, as an extension of its request.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    /// When it must be answered; a stream: its first message.
    answer: Instant,
    /// When the client stops waiting, if it said so.
    client: Option<Instant>,
}

/// When a call must be answered.
pub(super) fn deadline<T>(request: &tonic::Request<T>) -> Option<Instant> {
    request
        .extensions()
        .get::<Deadlines>()
        .map(|deadlines| deadlines.answer)
}

/// When the client stops waiting, if it said so.
pub(super) fn client_deadline<T>(request: &tonic::Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadlines>()?.client
}

/// Bounds every call of a service.
#[derive(Clone)]
pub(super) struct BoundsLayer {
    pub state: Arc<State>,
}

/// A service whose calls are bounded.
#[derive(Clone)]
pub(super) struct Bounds<S> {
    service: S,
    state: Arc<State>,
}

/// An answer that counts until it is sent.
pub(super) struct CountedBody<B> {
    body: Pin<Box<B>>,
    _place: Option<OwnedSemaphorePermit>,
    _reservation: Option<Arc<Reservation>>,
}

impl<S> Layer<S> for BoundsLayer {
    type Service = Bounds<S>;

    fn layer(&self, service: S) -> Bounds<S> {
        Bounds {
            service,
            state: Arc::clone(&self.state),
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for Bounds<S>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Body<Data = Bytes, Error = Status> + Default + Send + 'static,
{
    type Response = Response<Unread<CountedBody<B>>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let unread = self.state.limits.unread;
        let path = request.uri().path();
        let place = if UNCOUNTED.iter().any(|uncounted| path.starts_with(uncounted)) {
            Ok(None)
        } else {
            self.state.inference.enter().map(Some)
        };
        let place = match place {
            Ok(place) => place,
            Err(error) => return Box::pin(async move { Ok(refusal(error, unread)) }),
        };
        // Taken now, not when the future is first polled: tonic has a clock of its own, which starts next and ends the call
        // with another status.
        let now = Instant::now();
        let latest = now + self.state.limits.time;
        let client = timeout(request.headers()).map(|timeout| now + timeout);
        let deadline = client.map_or(latest, |client| client.min(latest));
        request.extensions_mut().insert(Deadlines {
            answer: deadline,
            client,
        });
        let answer = self.service.call(request);
        Box::pin(async move {
            let Ok(answer) = tokio::time::timeout_at(deadline.into(), answer).await else {
                return Ok(refusal(ServerError::DeadlineExceeded, unread));
            };
            let mut answer = answer?;
            let reservation = answer.extensions_mut().remove();
            let counted = |body| CountedBody {
                body: Box::pin(body),
                _place: place,
                _reservation: reservation,
            };
            Ok(answer.map(|body| Unread::new(counted(body), unread)))
        })
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.body.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn refusal<B: Default + Send + 'static>(
    error: ServerError,
    unread: Duration,
) -> Response<Unread<CountedBody<B>>> {
    let body = CountedBody {
        body: Box::pin(B::default()),
        _place: None,
        _reservation: None,
    };
    Status::from(error)
        .into_http()
        .map(|()| Unread::new(body, unread))
}

/// How long the client waits, if it said so in a way that can be understood.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get(TIMEOUT)?.to_str().ok()?)
}

/// At most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("150m", Some(Duration::from_millis(150))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("100000000m", None),
            ("+1S", None),
            ("S", None),
            ("1", None),
            ("1ß", None),
            ("", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }
}
