//! Errors in the protocol's form: `{"error": "…"}`.

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError};
use serde_json::json;

use crate::error::{InternalError, ServerError};

/// An error that the protocol's clients understand.
#[derive(Debug)]
pub(super) struct ProtocolError(ServerError);

impl From<ServerError> for ProtocolError {
    fn from(error: ServerError) -> Self {
        Self(error)
    }
}

impl From<InternalError> for ProtocolError {
    fn from(error: InternalError) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl ResponseError for ProtocolError {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        self.0.response().json(json!({"error": self.0.to_string()}))
    }
}

impl Responder for ProtocolError {
    type Body = BoxBody;

    fn respond_to(self, _request: &HttpRequest) -> HttpResponse {
        self.error_response()
    }
}
