//! A network's input as bytes in, activations out: how everything but Ventral's own protocol computes.

use std::sync::Arc;

use bytes::Bytes;

use crate::bundle::Bundle;
use crate::error::ServerError;
use crate::inference::{Answer, Inference, Options};
use crate::stimuli::{Stimuli, StimulusType, TensorStimuli};

/// Activations of `layers`, in their order, for an input of this shape: little-endian float32, `[N, C, H, W]`.
///
/// # Errors
/// Those of [`Inference::infer`].
pub async fn activations(
    inference: &Inference,
    bundle: &Arc<Bundle>,
    shape: Vec<u64>,
    data: Bytes,
    layers: &[String],
    options: &Options,
) -> Result<Answer, ServerError> {
    let stimuli = Stimuli::Tensor(TensorStimuli {
        data_type: StimulusType::Float32,
        shape,
        data,
    });
    inference.infer(bundle, stimuli, layers, options).await
}
