//! `GET /metrics`: the figures for Prometheus.

use actix_web::HttpResponse;
use actix_web::http::header;

use crate::error::{InternalError, ServerError};
use crate::telemetry::metrics::{CONTENT_TYPE, metrics as figures};

/// Answers one request.
pub(super) async fn metrics() -> Result<HttpResponse, ServerError> {
    let text = figures().encode().map_err(InternalError::from)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, CONTENT_TYPE))
        .body(text))
}
