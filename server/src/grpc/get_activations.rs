//! `GetActivations`: activations of any layers for a batch of images.

use std::sync::Arc;

use proto::ventral::v1::{GetActivationsRequest, GetActivationsResponse};
use tonic::{Request, Response};

use super::{bounds, messages};
use crate::error::ServerError;
use crate::inference::{self, Priority};
use crate::state::State;

/// Answers one request.
pub(super) async fn get_activations(
    state: &State,
    request: Request<GetActivationsRequest>,
) -> Result<Response<GetActivationsResponse>, ServerError> {
    let deadline = bounds::deadline(&request);
    let request = request.into_inner();
    let bundle = &state.bundle(&request.model, &request.version).await?;
    let options = messages::options(request.options, Priority::Interactive, deadline)?;
    let stimuli = messages::stimuli(request.stimuli)?;
    let answer = state
        .inference
        .infer(bundle, stimuli, &request.layers, &options)
        .await?;
    let activations = inference::in_one_piece(answer.activations).await?;
    let mut response = Response::new(GetActivationsResponse {
        model: bundle.model.clone(),
        version: bundle.version.to_string(),
        checkpoint_digest: bundle.manifest.checkpoint_digest.clone(),
        activations: activations.into_iter().map(messages::tensor).collect(),
    });
    // Counted until the answer is sent.
    response.extensions_mut().insert(Arc::new(answer.reservation));
    Ok(response)
}
