//! Reads a request's body: a file, or the files and fields of a form. Reading stops at the limits, and what has come is
//! counted from then on.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use model::image::ImageError;

use crate::error::ServerError;
use crate::inference::Reservation;
use crate::limits::Limits;
use crate::state::State;

/// Bytes of a field that isn't a file: a list of a million units fits.
const FIELD_BYTES: usize = 8 << 20;

/// A request's body.
pub(super) enum Body {
    /// It is a file.
    One(Bytes),
    /// It is a form.
    Form(Form),
}

/// A form.
#[derive(Default)]
pub(super) struct Form {
    /// Files in their order.
    pub files: Vec<Bytes>,
    /// Other fields, each with its name, at most one of each.
    pub fields: Vec<(String, Bytes)>,
}

/// Reads a body of at most `limits.body_bytes` bytes, and counts its memory. A form may have fields of those names that
/// aren't files.
pub(super) async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    state: &State,
    fields: &[&str],
) -> Result<(Body, Reservation), ServerError> {
    let mut memory = state.inference.reserve(0)?;
    let limit = state.limits.body_bytes;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(ServerError::BodyTooLarge { limit });
    }
    let body = match media_type(request).as_str() {
        "multipart/form-data" => {
            Body::Form(read_form(request, payload, &state.limits, fields, &mut memory).await?)
        }
        // A body without a type is bytes of an unknown kind; curl calls every body a form unless it is told otherwise.
        "" | "application/octet-stream" | "application/x-www-form-urlencoded" => {
            read_file(payload, limit, &mut memory).await?
        }
        "application/x-npy" => read_file(payload, limit, &mut memory).await?,
        image if image.starts_with("image/") => read_file(payload, limit, &mut memory).await?,
        other => return Err(ServerError::UnsupportedMediaType { found: other.into() }),
    };
    Ok((body, memory))
}

/// Reads all of at most `limit` bytes, and counts their memory.
pub(super) async fn read_all(
    mut payload: web::Payload,
    limit: usize,
    memory: &mut Reservation,
) -> Result<Bytes, ServerError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| broken(&error))?;
        if chunk.len() > limit - body.len() {
            return Err(ServerError::BodyTooLarge { limit });
        }
        memory.grow(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The content type without its parameters, in lower case; empty where there is none.
fn media_type(request: &HttpRequest) -> String {
    let value = request.headers().get(header::CONTENT_TYPE);
    let value = value.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let value = value.unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

async fn read_file(
    payload: web::Payload,
    limit: usize,
    memory: &mut Reservation,
) -> Result<Body, ServerError> {
    let body = read_all(payload, limit, memory).await?;
    if body.is_empty() {
        return Err(ServerError::NoImages);
    }
    Ok(Body::One(body))
}

async fn read_form(
    request: &HttpRequest,
    payload: web::Payload,
    limits: &Limits,
    fields: &[&str],
    memory: &mut Reservation,
) -> Result<Form, ServerError> {
    let limit = limits.body_bytes;
    let mut remaining = limit;
    let limited = payload.map(move |chunk: Result<Bytes, PayloadError>| {
        let chunk = chunk?;
        remaining = remaining.checked_sub(chunk.len()).ok_or(PayloadError::Overflow)?;
        Ok(chunk)
    });
    let mut multipart = Multipart::new(request.headers(), limited);
    let mut form = Form::default();
    while let Some(field) = multipart.next().await {
        let field = field.map_err(|error| failed(error, limits))?;
        let disposition = field.content_disposition();
        if disposition.is_none_or(|disposition| disposition.get_filename().is_none()) {
            let name = field.name().unwrap_or_default().to_owned();
            if !fields.contains(&name.as_str()) || form.fields.iter().any(|(other, _)| *other == name) {
                let message = format!("the form's field `{name}` is not a file; every field must be a file");
                return Err(ServerError::InvalidArgument(message));
            }
            let too_large = |_| {
                ServerError::InvalidArgument(format!(
                    "the form's field `{name}` has more than {FIELD_BYTES} bytes"
                ))
            };
            let content = read_field(field, FIELD_BYTES, limits, memory, too_large).await?;
            form.fields.push((name, content));
            continue;
        }
        let index = form.files.len();
        if index == limits.images {
            let (found, limit) = (index + 1, limits.images);
            return Err(ServerError::TooManyImages { found, limit });
        }
        // An array has as many bytes as the body may have.
        let is_array = field
            .content_type()
            .is_some_and(|media_type| media_type.essence_str() == "application/x-npy")
            || field
                .content_disposition()
                .and_then(|disposition| disposition.get_filename())
                .is_some_and(|name| name.ends_with(".npy"));
        let limit = if is_array {
            limits.body_bytes
        } else {
            limits.image.bytes
        };
        let too_large = |found| ServerError::Image {
            index,
            source: ImageError::TooManyBytes { found, limit },
        };
        form.files
            .push(read_field(field, limit, limits, memory, too_large).await?);
    }
    if form.files.is_empty() {
        return Err(ServerError::NoImages);
    }
    Ok(form)
}

/// A field of at most `limit` bytes.
async fn read_field(
    mut field: Field,
    limit: usize,
    limits: &Limits,
    memory: &mut Reservation,
    too_large: impl Fn(usize) -> ServerError,
) -> Result<Bytes, ServerError> {
    let mut content = BytesMut::new();
    while let Some(chunk) = field.next().await {
        let chunk = chunk.map_err(|error| failed(error, limits))?;
        let found = content.len() + chunk.len();
        if found > limit {
            return Err(too_large(found));
        }
        memory.grow(chunk.len())?;
        content.extend_from_slice(&chunk);
    }
    Ok(content.freeze())
}

fn failed(error: MultipartError, limits: &Limits) -> ServerError {
    match error {
        MultipartError::Payload(PayloadError::Overflow) => ServerError::BodyTooLarge {
            limit: limits.body_bytes,
        },
        error => broken(&error),
    }
}

/// A body that ended early, or is not what it says.
pub(super) fn broken(error: &dyn std::fmt::Display) -> ServerError {
    ServerError::InvalidArgument(format!("the body can't be read: {error}"))
}
