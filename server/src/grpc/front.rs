//! The layer around all services: [`Front`] for gRPC.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument as _;

use super::methods;
use crate::error::ServerError;
use crate::front::running::Running;
use crate::front::{Front, Head, REQUEST_ID};
use crate::inference::Reservation;
use crate::security::rules;
use crate::state::State;
use crate::telemetry::metrics::Protocol;

/// Puts [`Front`] before services.
#[derive(Clone)]
pub(super) struct FrontLayer {
    front: Arc<Front>,
    state: Arc<State>,
}

/// Services with [`Front`] before them.
#[derive(Clone)]
pub(super) struct FrontService<S> {
    front: Arc<Front>,
    state: Arc<State>,
    services: S,
}

/// The body of a request, whose bytes are counted.
struct Counted {
    body: Body,
    bytes: Arc<AtomicU64>,
    /// The memory of a request that is one message, until that is there: its handler counts it from then on. Of a stream,
    /// the handler counts as much as it lets in.
    memory: Option<Reservation>,
}

/// The body of an answer; with its end, or when the client gives up, the request ends.
struct Observed {
    body: Body,
    running: Running,
}

impl FrontLayer {
    pub(super) fn new(front: Arc<Front>, state: Arc<State>) -> Self {
        Self { front, state }
    }
}

impl<S> Layer<S> for FrontLayer {
    type Service = FrontService<S>;

    fn layer(&self, services: S) -> FrontService<S> {
        FrontService {
            front: Arc::clone(&self.front),
            state: Arc::clone(&self.state),
            services,
        }
    }
}

impl<S, B> Service<Request<Body>> for FrontService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let is_known = methods::is_known(&path);
        let (running, admitted) = self.front.begin(&Head {
            protocol: Protocol::Grpc,
            path: &path,
            need: rules::grpc(&path),
            header: |name: &str| request.headers().get(name)?.to_str().ok(),
        });
        let call = match admitted {
            Ok(call) => call,
            Err(refusal) => {
                let response = Status::from(ServerError::from(refusal)).into_http::<Body>();
                // Who isn't admitted doesn't choose names in the figures either.
                return Box::pin(async move { Ok(observed(running, response, None)) });
            }
        };
        let (mut head, body) = request.into_parts();
        head.extensions.insert(call);
        let bytes = running.received();
        let counts = methods::is_one_message(&path);
        let memory = counts.then(|| self.state.inference.reserve(0).ok()).flatten();
        let body = Counted { body, bytes, memory };
        let request = Request::from_parts(head, Body::new(body));
        let answer = self.services.call(request).instrument(running.span().clone());
        Box::pin(async move {
            let response = answer.await?;
            Ok(observed(running, response, is_known.then_some(path)))
        })
    }
}

fn observed<B>(mut running: Running, response: Response<B>, path: Option<String>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let (mut head, body) = response.into_parts();
    if let Ok(id) = HeaderValue::from_str(running.id()) {
        head.headers.insert(REQUEST_ID, id);
    }
    // An answer that is an error from the start has its status here.
    state_limit(&mut head.headers);
    set_status(&mut running, &head.headers);
    running.set_method(path);
    let body = Body::new(body);
    Response::from_parts(head, Body::new(Observed { body, running }))
}

fn set_status(running: &mut Running, headers: &HeaderMap) {
    let Some(code) = headers.get(Status::GRPC_STATUS) else {
        return;
    };
    let code = Code::from_bytes(code.as_bytes());
    let failed = matches!(code, Code::Internal | Code::Unknown | Code::DataLoss);
    running.set_status(name(code), failed);
}

/// tonic's own word for a message past the limit is `OUT_OF_RANGE`, which nothing else here is; every other limit's, and
/// other servers' for this one, is `RESOURCE_EXHAUSTED`.
fn state_limit(headers: &mut HeaderMap) {
    let code = headers.get_mut(Status::GRPC_STATUS);
    if let Some(code) = code.filter(|code| Code::from_bytes(code.as_bytes()) == Code::OutOfRange) {
        *code = HeaderValue::from(Code::ResourceExhausted as i32);
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let length = data.len();
            self.bytes.fetch_add(length as u64, Ordering::Relaxed);
            if let Some(memory) = &mut self.memory
                && let Err(error) = memory.grow(length)
            {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let span = self.running.span().clone();
        let _inside = span.enter();
        let began = Instant::now();
        let mut polled = Pin::new(&mut self.body).poll_frame(context);
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.running.sent(data.len() as u64, began.elapsed());
                } else if let Some(trailers) = frame.trailers_mut() {
                    state_limit(trailers);
                    set_status(&mut self.running, trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => {
                self.running.set_status(name(status.code()), true);
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
