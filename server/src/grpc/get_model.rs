//! `GetModel`: one model's layers, input and classes.

use proto::ventral::v1::{GetModelRequest, GetModelResponse, Layer};

use crate::error::{InternalError, ServerError};
use crate::repository::memory;
use crate::state::State;

/// Answers one request.
pub(super) async fn get_model(
    state: &State,
    request: &GetModelRequest,
) -> Result<GetModelResponse, ServerError> {
    let loaded = state
        .repository()?
        .loaded(&request.model, &request.version)
        .await?;
    let bundle = &loaded.bundle;
    let manifest = &bundle.manifest;
    let lengths = |shape: &[usize]| shape.iter().map(|&length| length as u64).collect();
    let layer = |layer: &model::Layer| Layer {
        name: layer.name.clone(),
        shape: lengths(&layer.shape),
    };
    let input = manifest.architecture.input;
    let preprocessing = serde_json::to_string(&manifest.preprocessing).map_err(InternalError::from)?;
    let resident = memory::resident_weights(vec![bundle.clone()]).await;
    Ok(GetModelResponse {
        name: bundle.model.clone(),
        version: bundle.version.to_string(),
        layers: manifest.layers.iter().map(layer).collect(),
        input_shape: lengths(&[input.channels, input.height, input.width]),
        class_names: manifest.class_names.clone(),
        checkpoint_digest: manifest.checkpoint_digest.clone(),
        preprocessing_json: preprocessing,
        execution_provider: state.inference.provider().name().into(),
        execution_provider_reason: state.inference.provider().reason().into(),
        weights: manifest.weights.name().into(),
        load_seconds: loaded.load_time.as_secs_f64(),
        weight_bytes: bundle.weight_bytes(),
        resident_bytes: resident.get(&bundle.id).copied(),
    })
}
