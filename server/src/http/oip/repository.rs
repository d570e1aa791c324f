//! The model repository extension: `POST /v2/repository/…`.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Named;
use super::error::ProtocolError;
use super::parameters::Parameters;
use crate::error::ServerError;
use crate::front::call::Call;
use crate::http::body;
use crate::oip::admission::check_load_parameters;
use crate::repository::{BundleState, IndexEntry};
use crate::state::State;

/// Bytes of a request's body at most: it says little, and is read on a thread that serves connections.
const BODY_BYTES: usize = 64 << 10;

/// What a request for the index may say.
#[derive(Default, Deserialize)]
struct IndexRequest {
    /// Only what answers requests.
    #[serde(default)]
    ready: bool,
}

/// What a request to load or to unload a model may say.
#[derive(Default, Deserialize)]
struct ChangeRequest {
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    version: String,
    state: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_bytes: Option<u64>,
}

pub(super) async fn index(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
    payload: web::Payload,
) -> Result<HttpResponse, ProtocolError> {
    let request: IndexRequest = read(&state, payload).await?;
    let index = state.repository()?.index().into_iter();
    let asked_for = index
        .filter(|entry| call.may_see(&entry.model) && (!request.ready || entry.state == BundleState::Ready));
    let entry = |entry: IndexEntry| Entry {
        name: entry.model,
        version: entry.version.to_string(),
        state: entry.state.name(),
        reason: entry.reason,
        load_seconds: entry.loaded.as_ref().map(|loaded| loaded.load_time.as_secs_f64()),
        weight_bytes: entry.loaded.map(|loaded| loaded.bundle.weight_bytes()),
    };
    Ok(HttpResponse::Ok().json(asked_for.map(entry).collect::<Vec<_>>()))
}

pub(super) async fn load(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, .. } = Named::of(&request)?;
    let change: ChangeRequest = read(&state, payload).await?;
    check_load_parameters(change.parameters.names())?;
    state.repository()?.load(&model).await?;
    Ok(HttpResponse::Ok().json(json!({})))
}

/// No model depends on another, so that the parameter for that makes no difference.
pub(super) async fn unload(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, .. } = Named::of(&request)?;
    let _: ChangeRequest = read(&state, payload).await?;
    state.repository()?.unload(&model).await?;
    Ok(HttpResponse::Ok().json(json!({})))
}

/// A body of JSON, or an empty one, which says nothing.
async fn read<T: Default + for<'de> Deserialize<'de>>(
    state: &State,
    payload: web::Payload,
) -> Result<T, ServerError> {
    let limit = state.limits.body_bytes.min(BODY_BYTES);
    let body = body::read_all(payload, limit, &mut state.inference.reserve(0)?).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    let wrong = |problem: &dyn std::fmt::Display| {
        ServerError::InvalidArgument(format!(
            "the request is not the JSON that it should be: {problem}"
        ))
    };
    // A list would do for a structure, otherwise.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(wrong(&"expected an object"));
    }
    serde_json::from_slice(&body).map_err(|error| wrong(&error))
}
