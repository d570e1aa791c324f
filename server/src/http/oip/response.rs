//! Answers as bytes: JSON, followed by those tensors that are wanted raw.

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::request::ParsedRequest;
use crate::error::{InternalError, ServerError};
use crate::inference::Reservation;
use crate::oip::DATATYPE;
use crate::oip::infer::InferAnswer;

/// Characters of the longest number, `-1.1754943508222875e-38`, and of what separates it from the next.
const LONGEST_NUMBER: u128 = 24;

/// An answer.
pub(super) struct Written {
    /// The JSON, and then the raw tensors.
    pub parts: Vec<Bytes>,
    /// The length of the JSON, where something follows it.
    pub json_length: Option<usize>,
    /// The memory of the activations, which is counted until this is dropped.
    pub reservation: Reservation,
}

/// How the outputs of a request are to be written.
pub(super) struct Form {
    id: String,
    raw: Vec<bool>,
    raw_by_default: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    outputs: Vec<JsonOutput<'a>>,
}

#[derive(Serialize)]
struct JsonOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Numbers<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Float32 values. They are written as the float64 values that they are, so that a reader of either type gets the same.
struct Numbers<'a>(&'a [u8]);

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values(self.0).map(f64::from))
    }
}

impl Form {
    /// The form that a request wants.
    pub fn of(request: &mut ParsedRequest) -> Self {
        Self {
            id: std::mem::take(&mut request.id),
            raw: std::mem::take(&mut request.raw),
            raw_by_default: request.raw_by_default,
        }
    }

    /// Bytes of text that the numbers of an answer take at most.
    pub fn most_text(&self, answer: &InferAnswer) -> u128 {
        let outputs = answer.outputs.iter().enumerate();
        let as_text = outputs.filter(|(index, _)| !self.is_raw(*index));
        let values: usize = as_text
            .map(|(_, output)| output.data.len() / size_of::<f32>())
            .sum();
        values as u128 * LONGEST_NUMBER
    }

    fn is_raw(&self, index: usize) -> bool {
        self.raw.get(index).copied().unwrap_or(self.raw_by_default)
    }

    /// Writes an answer.
    ///
    /// # Errors
    /// [`ServerError::InvalidArgument`] where numbers are wanted as JSON that JSON doesn't have.
    pub fn write(&self, answer: InferAnswer) -> Result<Written, ServerError> {
        let mut outputs = Vec::with_capacity(answer.outputs.len());
        for (index, output) in answer.outputs.iter().enumerate() {
            let raw = self.is_raw(index);
            if !raw && !values(&output.data).all(f32::is_finite) {
                return Err(ServerError::InvalidArgument(format!(
                    "output `{}` has values that JSON can't express, infinite ones or none: ask for it with \
                     `\"parameters\": {{\"binary_data\": true}}`",
                    output.layer
                )));
            }
            outputs.push(JsonOutput {
                name: &output.layer,
                datatype: DATATYPE,
                shape: &output.shape,
                parameters: raw.then_some(Parameters {
                    binary_data_size: output.data.len(),
                }),
                data: (!raw).then_some(Numbers(&output.data)),
            });
        }
        let json = serde_json::to_vec(&Json {
            model_name: &answer.bundle.model,
            model_version: answer.bundle.version.to_string(),
            id: &self.id,
            outputs,
        });
        let json = Bytes::from(json.map_err(InternalError::from)?);
        let json_length = json.len();
        let mut parts = vec![json];
        let raw = answer
            .outputs
            .into_iter()
            .enumerate()
            .filter(|(index, _)| self.is_raw(*index));
        parts.extend(raw.map(|(_, output)| output.data));
        Ok(Written {
            json_length: (parts.len() > 1).then_some(json_length),
            parts,
            reservation: answer.reservation,
        })
    }
}

fn values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (values, _) = bytes.as_chunks();
    values.iter().map(|&value| f32::from_le_bytes(value))
}
