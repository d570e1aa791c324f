//! The middleware around all routes: [`Front`] for HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::{InternalError, PayloadError};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, web};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::Instrument as _;

use crate::front::running::Running;
use crate::front::{Front, Head, REQUEST_ID};
use crate::security::rules;
use crate::telemetry::metrics::Protocol;

/// Methods that stand in the figures; clients may write others.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// The body of an answer; with its end, or when the client gives up, the request ends.
pub(super) struct Observed {
    body: BoxBody,
    running: Running,
}

/// Admits a request and observes it, or refuses it.
pub(super) async fn observe<B: MessageBody + 'static>(
    front: web::Data<Front>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<Observed>, Error> {
    // The path as the router sees it: percent-encoding an address doesn't change what it needs.
    let (method, path) = (request.method().as_str(), request.match_info().as_str());
    let (mut running, admitted) = front.begin(&Head {
        protocol: Protocol::Http,
        path,
        need: rules::http(method, path),
        header: |name: &str| request.headers().get(name)?.to_str().ok(),
    });
    let call = match admitted {
        Ok(call) => call,
        Err(refusal) => {
            let response = super::error(path, refusal.into()).error_response();
            return Ok(observed(running, request.into_response(response)));
        }
    };
    request.extensions_mut().insert(call);
    if request.method() == Method::HEAD {
        // Whatever can be got has a head. The server leaves the answer's body out by itself.
        request.head_mut().method = Method::GET;
    }
    count_payload(&mut request, running.received());
    let answer = next.call(request).instrument(running.span().clone()).await;
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            // What another middleware refuses; no route has seen it.
            let mut response = error.error_response();
            mark(&mut running, response.status(), response.headers_mut());
            return Err(InternalError::from_response(error, response).into());
        }
    };
    let method = response.request().method().as_str();
    let route = response.request().match_pattern();
    let known = METHODS.contains(&method) && response.status() != StatusCode::METHOD_NOT_ALLOWED;
    let method = route.filter(|_| known).map(|route| format!("{method} {route}"));
    running.set_method(method);
    Ok(observed(running, response.map_into_boxed_body()))
}

fn observed(mut running: Running, mut response: ServiceResponse) -> ServiceResponse<Observed> {
    mark(&mut running, response.status(), response.headers_mut());
    response.map_body(|_, body| Observed { body, running })
}

/// Puts the request's identifier on its answer, and the answer's status on the request.
fn mark(running: &mut Running, status: StatusCode, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(running.id()) {
        headers.insert(HeaderName::from_static(REQUEST_ID), id);
    }
    let not_now = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    let failed = status.is_server_error() && !not_now.contains(&status);
    running.set_status(status.as_str(), failed);
}

fn count_payload(request: &mut ServiceRequest, bytes: Arc<AtomicU64>) {
    let payload = request.take_payload();
    if matches!(payload, Payload::None) {
        return;
    }
    let counted = payload.inspect(move |chunk: &Result<Bytes, PayloadError>| {
        if let Ok(chunk) = chunk {
            bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    });
    request.set_payload(Payload::Stream {
        payload: Box::pin(counted),
    });
}

impl MessageBody for Observed {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let began = std::time::Instant::now();
        let polled = Pin::new(&mut self.body).poll_next(context);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            self.running.sent(chunk.len() as u64, began.elapsed());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use actix_web::App;
    use actix_web::http::header::RETRY_AFTER;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, try_call_service};

    use super::*;
    use crate::error::ServerError;
    use crate::security::access::{Access, Refusal};

    async fn refuse<B>(_request: ServiceRequest, _next: Next<B>) -> Result<ServiceResponse<B>, Error> {
        let refusal = Refusal::TooMany {
            name: "lab".into(),
            wait: std::time::Duration::from_millis(1500),
        };
        Err(ServerError::from(refusal).into())
    }

    #[actix_web::test]
    async fn what_another_middleware_refuses_carries_the_identifier_too() {
        let front = web::Data::new(Front::new(Access::new(None, true, false)));
        let application = App::new()
            .app_data(front)
            .wrap(from_fn(refuse))
            .wrap(from_fn(observe));
        let service = init_service(application).await;
        let request = TestRequest::get()
            .insert_header((REQUEST_ID, "mine"))
            .to_request();
        let Err(error) = try_call_service(&service, request).await else {
            panic!("the request was answered");
        };
        let response = error.error_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get(REQUEST_ID).unwrap(), "mine");
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "2");
    }
}
