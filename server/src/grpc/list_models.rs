//! `ListModels`: the models that are served and that the caller may use, with their versions.

use proto::ventral::v1::{ListModelsResponse, ModelSummary};

use crate::error::ServerError;
use crate::front::call::Call;
use crate::state::State;

/// Answers one request.
pub(super) fn list_models(state: &State, call: &Call) -> Result<ListModelsResponse, ServerError> {
    let mut models: Vec<ModelSummary> = Vec::new();
    let served = state.repository()?.served();
    for entry in served.filter(|entry| call.may_see(&entry.model)) {
        let version = entry.version.to_string();
        match models.last_mut().filter(|model| model.name == entry.model) {
            Some(model) => model.versions.push(version),
            None => models.push(ModelSummary {
                name: entry.model,
                versions: vec![version],
            }),
        }
    }
    Ok(ListModelsResponse { models })
}
