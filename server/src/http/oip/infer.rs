//! `POST /v2/models/{model}[/versions/{version}]/infer`.

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};

use super::body::Coding;
use super::error::ProtocolError;
use super::response::Form;
use super::{Named, request};
use crate::error::{InternalError, ServerError};
use crate::http::answer::sized;
use crate::http::body::read_all;
use crate::oip::infer;
use crate::state::State;

/// The length of a body's JSON, where raw tensors follow it.
const JSON_LENGTH: &str = "Inference-Header-Content-Length";

/// Answers one request. Packing and JSON are work for threads that serve no connections.
pub(super) async fn infer(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, version } = Named::of(&request)?;
    let (coding, json_length) = (
        Coding::of_request(request.headers())?,
        json_length(request.headers())?,
    );
    let answer_coding = Coding::of_answer(request.headers());
    let limit = state.limits.body_bytes;
    let mut memory = state.inference.reserve(0)?;
    let mut body = read_all(payload, limit, &mut memory).await?;
    if coding != Coding::Identity {
        let mut unpacked = state.inference.reserve(limit as u128)?;
        body = blocking(move || coding.unpack(body, limit)).await??;
        unpacked.shrink_to(body.len() as u128);
        memory = unpacked;
    }
    let json = json_length.map_or(body.len(), |length| length.min(body.len()));
    let parsing = state.inference.reserve(request::PARSED * json as u128)?;
    let parse = move || request::parse(model, version, &body, json_length);
    let mut parsed = blocking(parse).await??;
    let form = Form::of(&mut parsed);
    // Counted with everything else of the request from here.
    drop((memory, parsing));
    let answer = infer::infer(&state, parsed.request, None).await?;
    // Numbers are many times as long as text.
    let mut text = state.inference.reserve(form.most_text(&answer))?;
    let write = move || {
        let written = form.write(answer)?;
        let parts = answer_coding.pack(written.parts).map_err(InternalError::from)?;
        text.shrink_to(parts.first().map_or(0, |json| json.len() as u128));
        Ok::<_, ServerError>((parts, written.json_length, (written.reservation, text)))
    };
    let (parts, json_length, held) = blocking(write).await??;
    let mut response = HttpResponse::Ok();
    if let Some(name) = answer_coding.name() {
        response.insert_header((header::CONTENT_ENCODING, name));
    }
    match json_length {
        Some(length) => response
            .insert_header((JSON_LENGTH, length))
            .content_type("application/octet-stream"),
        None => response.content_type("application/json"),
    };
    Ok(sized(&mut response, parts, held))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, InternalError> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, ServerError> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|value| value.parse().ok());
    length.map(Some).ok_or_else(|| {
        ServerError::InvalidArgument(format!("the header `{JSON_LENGTH}` is not a number of bytes"))
    })
}
