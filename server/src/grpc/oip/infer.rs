//! `ModelInfer` and `ModelStreamInfer`: tensors in the messages' typed fields or as raw bytes.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::InferInputTensor;
use proto::inference::model_infer_response::InferOutputTensor;
use proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};

use crate::error::ServerError;
use crate::inference::Reservation;
use crate::oip::DATATYPE;
use crate::oip::admission::check_tensor_parameters;
use crate::oip::infer::{self, Elements, InferRequest, InputTensor};
use crate::oip::urgency::Urgency;
use crate::state::State;

/// Answers one request; the memory of the answer is counted until the reservation is dropped.
pub(super) async fn infer(
    state: &State,
    request: ModelInferRequest,
    deadline: Option<Instant>,
) -> Result<(ModelInferResponse, Reservation), ServerError> {
    let id = request.id.clone();
    let answer = infer::infer(state, translate(request)?, deadline).await?;
    let mut response = ModelInferResponse {
        model_name: answer.bundle.model.clone(),
        model_version: answer.bundle.version.to_string(),
        id,
        ..Default::default()
    };
    for output in answer.outputs {
        let length = |&length: &usize| i64::try_from(length).unwrap_or(i64::MAX);
        response.outputs.push(InferOutputTensor {
            name: output.layer,
            datatype: DATATYPE.into(),
            shape: output.shape.iter().map(length).collect(),
            ..Default::default()
        });
        response.raw_output_contents.push(output.data);
    }
    Ok((response, answer.reservation))
}

/// Answers one request of a stream, if it is admitted: an error is a message, so that the stream goes on. The memory of an answer is counted
/// until the reservation is dropped.
pub(super) async fn infer_streamed(
    state: &State,
    admitted: Result<(), ServerError>,
    request: ModelInferRequest,
    deadline: Option<Instant>,
) -> (ModelStreamInferResponse, Option<Reservation>) {
    let id = request.id.clone();
    let answered = match admitted {
        Ok(()) => infer(state, request, deadline).await,
        Err(refused) => Err(refused),
    };
    match answered {
        Ok((response, reservation)) => {
            let response = ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(response),
            };
            (response, Some(reservation))
        }
        Err(error) => {
            error.log();
            let response = ModelStreamInferResponse {
                error_message: error.to_string(),
                // Clients tell by it which request has failed.
                infer_response: Some(ModelInferResponse {
                    id,
                    ..Default::default()
                }),
            };
            (response, None)
        }
    }
}

fn translate(request: ModelInferRequest) -> Result<InferRequest, ServerError> {
    let urgency = Urgency::of(|name| request.parameters.get(name).map(whole_number))?;
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(ServerError::InvalidArgument(format!(
            "the request has {} inputs and {} entries of `raw_input_contents`, expected one for each",
            request.inputs.len(),
            raw.len()
        )));
    }
    let mut raw = raw.into_iter();
    let inputs = request
        .inputs
        .into_iter()
        .map(|input| translate_input(input, raw.next()));
    let inputs = inputs.collect::<Result<_, _>>()?;
    let mut outputs = Vec::with_capacity(request.outputs.len());
    for output in request.outputs {
        check_tensor_parameters(&output.name, names(&output.parameters))?;
        outputs.push(output.name);
    }
    Ok(InferRequest {
        model: request.model_name,
        version: request.model_version,
        inputs,
        outputs,
        urgency,
    })
}

fn translate_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<InputTensor, ServerError> {
    check_tensor_parameters(&input.name, names(&input.parameters))?;
    let elements = match (raw, input.contents) {
        (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
            let message = format!(
                "input `{}` has both `contents` and `raw_input_contents`, expected one of them",
                input.name
            );
            return Err(ServerError::InvalidArgument(message));
        }
        (Some(raw), _) => Elements::Raw(raw),
        (None, contents) => Elements::Numbers(numbers(&input.name, contents.unwrap_or_default())?),
    };
    Ok(InputTensor {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
        elements,
    })
}

/// The numbers of the one field that may be filled.
fn numbers(input: &str, mut contents: InferTensorContents) -> Result<Vec<f32>, ServerError> {
    let numbers = std::mem::take(&mut contents.fp32_contents);
    if contents == InferTensorContents::default() {
        return Ok(numbers);
    }
    Err(ServerError::InvalidArgument(format!(
        "input `{input}` has elements in other fields than `fp32_contents`, which the network's {DATATYPE} needs"
    )))
}

fn whole_number(parameter: &InferParameter) -> Option<u64> {
    match parameter.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(number) => u64::try_from(*number).ok(),
        ParameterChoice::Uint64Param(number) => Some(*number),
        _ => None,
    }
}

fn names(parameters: &HashMap<String, InferParameter>) -> impl Iterator<Item = &str> {
    parameters.keys().map(String::as_str)
}
