//! Activations as the body of an answer: `.npy`, `.safetensors`, or JSON. The body is sent in small pieces of the
//! buffers in which the activations already are; the whole of it is never in one place.

use std::collections::VecDeque;

use actix_web::body::{BodyStream, SizedStream};
use actix_web::http::header;
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::{Map, json};

use super::npy;
use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError};
use crate::inference::{Activations, Answer, Compression, ElementType, Inference};

/// What is handed to the connection at a time, which copies it.
const PIECE: usize = 128 << 10;

/// How HTTP calls it.
const ZSTD: &str = "zstd";

/// Bytes of values whose text is made at a time.
const TEXT_PIECE: usize = 16 << 10;

/// What the body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// Numbers as text.
    #[default]
    Json,
    /// One array.
    Npy,
    /// A file of named arrays.
    Safetensors,
}

impl Format {
    /// By the request's `Accept`; the first type that is known decides.
    pub fn accepted(accept: &str) -> Option<Self> {
        let types = accept
            .split(',')
            .map(|part| part.split(';').next().unwrap_or_default().trim());
        types
            .filter_map(|media_type| {
                Self::ALL
                    .into_iter()
                    .find(|format| format.media_type() == media_type)
            })
            .next()
    }

    const ALL: [Self; 3] = [Self::Json, Self::Npy, Self::Safetensors];

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Npy => "application/x-npy",
            Self::Safetensors => "application/vnd.safetensors",
        }
    }

    /// Whether some activations can be written so; known before they are computed.
    ///
    /// # Errors
    /// [`ServerError::InvalidArgument`].
    pub fn check(self, layers: &[String], data_type: ElementType) -> Result<(), ServerError> {
        let problem = match self {
            Self::Npy if layers.len() > 1 => {
                "an .npy file holds one layer: ask for one, or for `safetensors`".into()
            }
            Self::Npy if data_type == ElementType::Bfloat16 => {
                ".npy files have no bfloat16: ask for float16, or for `safetensors`".into()
            }
            Self::Safetensors => match layers
                .iter()
                .enumerate()
                .find(|(index, layer)| layers[..*index].contains(layer))
            {
                Some((_, layer)) => {
                    format!("layer `{layer}` is asked for twice, a safetensors file holds it once")
                }
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        Err(ServerError::InvalidArgument(problem))
    }
}

/// The answer; its memory is counted until it is sent.
pub(super) async fn respond(
    inference: &Inference,
    bundle: &Bundle,
    answer: Answer,
    format: Format,
    compression: Compression,
) -> Result<HttpResponse, ServerError> {
    let mut response = HttpResponse::Ok();
    response
        .content_type(format.media_type())
        .insert_header(("ventral-model", bundle.model.as_str()))
        .insert_header(("ventral-version", bundle.version))
        .insert_header((
            "ventral-checkpoint-digest",
            bundle.manifest.checkpoint_digest.as_str(),
        ));
    let reservation = answer.reservation;
    let chunks = match format {
        Format::Json if compression == Compression::None => {
            let text = json_pieces(bundle, answer.activations)?;
            let pieces = text.map(move |piece| {
                let _counted = &reservation;
                Ok::<_, InternalError>(piece)
            });
            return Ok(response.body(BodyStream::new(stream::iter(pieces))));
        }
        Format::Json => {
            let packed = inference
                .pack_text(json_pieces(bundle, answer.activations)?)
                .await?;
            response.insert_header((header::CONTENT_ENCODING, ZSTD));
            return Ok(sized(&mut response, vec![packed], reservation));
        }
        Format::Npy => npy_chunks(answer.activations)?,
        Format::Safetensors => safetensors_chunks(bundle, answer.activations)?,
    };
    let chunks = match compression {
        Compression::None => chunks,
        Compression::Zstd => {
            response.insert_header((header::CONTENT_ENCODING, ZSTD));
            vec![inference.pack(chunks).await?]
        }
    };
    Ok(sized(&mut response, chunks, reservation))
}

/// A body of known length, in small pieces. `held` is dropped once it is sent.
pub(super) fn sized(
    response: &mut HttpResponseBuilder,
    chunks: Vec<Bytes>,
    held: impl Unpin + 'static,
) -> HttpResponse {
    let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    response.body(SizedStream::new(length, pieces(chunks, held)))
}

fn pieces(chunks: Vec<Bytes>, held: impl Unpin) -> impl Stream<Item = Result<Bytes, InternalError>> {
    let mut chunks = VecDeque::from(chunks);
    let next = move || {
        let _counted = &held;
        loop {
            let chunk = chunks.front_mut()?;
            if chunk.is_empty() {
                chunks.pop_front();
            } else {
                return Some(Ok(chunk.split_to(chunk.len().min(PIECE))));
            }
        }
    };
    stream::iter(std::iter::from_fn(next))
}

fn npy_chunks(activations: Vec<Activations>) -> Result<Vec<Bytes>, ServerError> {
    let mut chunks = Vec::new();
    for layer in activations {
        let header = npy::header(layer.data_type, &layer.shape);
        chunks
            .push(header.ok_or_else(|| ServerError::InvalidArgument("the array has no .npy header".into()))?);
        chunks.extend(layer.chunks);
    }
    Ok(chunks)
}

fn safetensors_chunks(bundle: &Bundle, activations: Vec<Activations>) -> Result<Vec<Bytes>, ServerError> {
    let metadata = json!({
        "model": bundle.model,
        "version": bundle.version.to_string(),
        "checkpoint_digest": bundle.manifest.checkpoint_digest,
    });
    let mut header = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let mut begin = 0;
    for layer in &activations {
        let end = begin + layer.chunks.iter().map(Bytes::len).sum::<usize>();
        let data_type = match layer.data_type {
            ElementType::Float32 => "F32",
            ElementType::Float16 => "F16",
            ElementType::Bfloat16 => "BF16",
        };
        let entry = json!({"dtype": data_type, "shape": layer.shape, "data_offsets": [begin, end]});
        header.insert(layer.layer.clone(), entry);
        begin = end;
    }
    let mut header = serde_json::to_string(&header).map_err(InternalError::from)?;
    let length = header.len().next_multiple_of(8);
    header.extend(std::iter::repeat_n(' ', length - header.len()));
    let start = [&(length as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let data = activations.into_iter().flat_map(|layer| layer.chunks);
    Ok(std::iter::once(start.into()).chain(data).collect())
}

/// JSON, made piece by piece as it is sent. Values that JSON can't express are null.
fn json_pieces(
    bundle: &Bundle,
    activations: Vec<Activations>,
) -> Result<impl Iterator<Item = Bytes> + Send + use<>, ServerError> {
    let text = |value: &serde_json::Value| serde_json::to_string(value).map_err(InternalError::from);
    let start = format!(
        r#"{{"model":{},"version":"{}","checkpoint_digest":{},"activations":["#,
        text(&json!(bundle.model))?,
        bundle.version,
        text(&json!(bundle.manifest.checkpoint_digest))?
    );
    let mut pieces: Vec<Box<dyn Iterator<Item = Bytes> + Send>> =
        vec![Box::new(std::iter::once(start.into()))];
    for (index, layer) in activations.into_iter().enumerate() {
        let start = format!(
            r#"{}{{"layer":{},"shape":{},"data_type":{},"data":["#,
            if index > 0 { "," } else { "" },
            text(&json!(layer.layer))?,
            text(&json!(layer.shape))?,
            text(&json!(layer.data_type))?
        );
        pieces.push(Box::new(std::iter::once(start.into())));
        pieces.push(Box::new(numbers(layer)));
        pieces.push(Box::new(std::iter::once(Bytes::from_static(b"]}"))));
    }
    pieces.push(Box::new(std::iter::once(Bytes::from_static(b"]}"))));
    Ok(pieces.into_iter().flatten())
}

/// Numbers with commas between them.
fn numbers(layer: Activations) -> impl Iterator<Item = Bytes> {
    let data_type = layer.data_type;
    let parts = layer.chunks.into_iter().flat_map(|mut chunk| {
        std::iter::from_fn(move || (!chunk.is_empty()).then(|| chunk.split_to(chunk.len().min(TEXT_PIECE))))
    });
    parts.enumerate().map(move |(index, part)| {
        let mut text = Vec::with_capacity(part.len() * 4);
        for (position, bytes) in part.chunks_exact(data_type.bytes()).enumerate() {
            if index + position > 0 {
                text.push(b',');
            }
            let value = match *bytes {
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                [a, b] if data_type == ElementType::Float16 => f16::from_le_bytes([a, b]).to_f32(),
                [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
                _ => f32::NAN,
            };
            // Writing a number into memory can't fail.
            let _ = serde_json::to_writer(&mut text, &value);
        }
        text.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_type_that_is_accepted_decides() {
        assert_eq!(
            Format::accepted("text/html, application/x-npy;q=0.9"),
            Some(Format::Npy)
        );
        assert_eq!(
            Format::accepted("application/vnd.safetensors"),
            Some(Format::Safetensors)
        );
        assert_eq!(Format::accepted("*/*"), None);
    }

    #[test]
    fn numbers_of_all_types_are_written() {
        let text = |data_type, chunks: &[&[u8]]| {
            let layer = Activations {
                layer: String::new(),
                shape: vec![],
                data_type,
                compression: Compression::None,
                chunks: chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect(),
            };
            let text: Vec<u8> = numbers(layer).flatten().collect();
            String::from_utf8(text).unwrap()
        };
        let one = 1.5_f32.to_le_bytes();
        let nan = f32::NAN.to_le_bytes();
        assert_eq!(
            text(ElementType::Float32, &[&[one, nan].concat(), &one]),
            "1.5,null,1.5"
        );
        assert_eq!(
            text(ElementType::Float16, &[&f16::from_f32(-0.5).to_le_bytes()]),
            "-0.5"
        );
        assert_eq!(
            text(ElementType::Bfloat16, &[&bf16::from_f32(2.0).to_le_bytes()]),
            "2.0"
        );
    }
}
