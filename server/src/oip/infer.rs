//! Answers inference requests: the image tensor in, any layers out.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::manifest::INPUT_NAME;

use super::DATATYPE;
use super::urgency::Urgency;
use crate::bundle::Bundle;
use crate::error::ServerError;
use crate::inference::{self, Activations, Answer, Options, Reservation};
use crate::state::State;
use crate::tensor_inference;

/// An input of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct InputTensor {
    /// Its name in the network.
    pub name: String,
    /// As the protocol names it.
    pub datatype: String,
    /// As the request says.
    pub shape: Vec<i64>,
    /// What it holds.
    pub elements: Elements,
}

/// The elements of a tensor, the last dimension fastest.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Little-endian.
    Raw(Bytes),
    /// As numbers.
    Numbers(Vec<f32>),
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct InferRequest {
    /// The model's name.
    pub model: String,
    /// Empty: the newest.
    pub version: String,
    /// All of them; a network takes one.
    pub inputs: Vec<InputTensor>,
    /// Names of layers; without any, the default one.
    pub outputs: Vec<String>,
    /// How urgent it is.
    pub urgency: Urgency,
}

/// What a request gets.
#[derive(Debug)]
pub struct InferAnswer {
    /// Who has answered.
    pub bundle: Arc<Bundle>,
    /// One tensor for each layer that was asked for, in their order.
    pub outputs: Vec<OutputTensor>,
    /// The memory that they take, which is counted until this is dropped.
    pub reservation: Reservation,
}

/// An output of an answer.
#[derive(Debug)]
pub struct OutputTensor {
    /// The layer's name.
    pub layer: String,
    /// `[N, C, H, W]`, for `fc` `[N, classes]`.
    pub shape: Vec<usize>,
    /// Little-endian float32, the last dimension fastest.
    pub data: Bytes,
}

/// Answers a request, whose client stops waiting at `deadline`, if it said so.
///
/// # Errors
/// Any [`ServerError`] of names, tensors and limits, or an internal one.
pub async fn infer(
    state: &State,
    request: InferRequest,
    deadline: Option<Instant>,
) -> Result<InferAnswer, ServerError> {
    let start = Instant::now();
    let options = request.urgency.options(deadline);
    let bundle = state.bundle(&request.model, &request.version).await?;
    let answer = compute(state, &bundle, request, &options).await;
    let succeeded = answer.as_ref().ok().map(|answer| {
        let images = answer.activations.first().and_then(|output| output.shape.first());
        (images.map_or(0, |&images| images as u64), answer.timings)
    });
    state
        .statistics
        .record(&bundle.model, bundle.version, succeeded, start.elapsed());
    let answer = answer?;
    let activations = inference::in_one_piece(answer.activations).await?;
    let output = |activations: Activations| OutputTensor {
        layer: activations.layer.clone(),
        shape: activations.shape.clone(),
        data: activations.into_bytes(),
    };
    Ok(InferAnswer {
        bundle,
        outputs: activations.into_iter().map(output).collect(),
        reservation: answer.reservation,
    })
}

async fn compute(
    state: &State,
    bundle: &Arc<Bundle>,
    request: InferRequest,
    options: &Options,
) -> Result<Answer, ServerError> {
    let input = only_input(request.inputs)?;
    let mut layers = request.outputs;
    if layers.is_empty() {
        layers.extend(bundle.default_layer().map(|layer| layer.name.clone()));
    }
    let length = |&length: &i64| {
        u64::try_from(length)
            .map_err(|_| ServerError::Tensor(format!("its shape {:?} has a negative length", input.shape)))
    };
    let shape = input.shape.iter().map(length).collect::<Result<Vec<_>, _>>()?;
    let data = match input.elements {
        Elements::Raw(bytes) => bytes,
        Elements::Numbers(numbers) => little_endian(numbers),
    };
    tensor_inference::activations(&state.inference, bundle, shape, data, &layers, options).await
}

/// Numbers as bytes, in the memory in which they are.
fn little_endian(mut numbers: Vec<f32>) -> Bytes {
    struct Numbers(Vec<f32>);

    impl AsRef<[u8]> for Numbers {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }

    if cfg!(target_endian = "big") {
        numbers
            .iter_mut()
            .for_each(|number| *number = f32::from_bits(number.to_bits().to_le()));
    }
    Bytes::from_owner(Numbers(numbers))
}

/// The image tensor, which is all that a network takes.
fn only_input(inputs: Vec<InputTensor>) -> Result<InputTensor, ServerError> {
    let names = || {
        let names: Vec<_> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        names.join(", ")
    };
    let wrong = match inputs.as_slice() {
        [] => format!("the request has no inputs; the network takes `{INPUT_NAME}`"),
        [input] if input.name != INPUT_NAME => {
            format!("there is no input {}; the network takes `{INPUT_NAME}`", names())
        }
        [input] if input.datatype != DATATYPE => format!(
            "input `{INPUT_NAME}` is of datatype `{}`, the network takes {DATATYPE}",
            input.datatype
        ),
        [_] => return inputs.into_iter().next().ok_or(ServerError::NoImages),
        _ => format!(
            "the request has inputs {}; the network takes only `{INPUT_NAME}`",
            names()
        ),
    };
    Err(ServerError::InvalidArgument(wrong))
}
