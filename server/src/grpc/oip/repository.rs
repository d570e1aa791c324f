//! The model repository extension.

use proto::inference::repository_index_response::ModelIndex;
use proto::inference::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};

use crate::error::ServerError;
use crate::front::call::Call;
use crate::oip::admission::{check_load_parameters, check_repository_name};
use crate::repository::{BundleState, IndexEntry};
use crate::state::State;

pub(super) fn index(
    state: &State,
    call: &Call,
    request: &RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, ServerError> {
    check_repository_name(&request.repository_name)?;
    let index = state.repository()?.index().into_iter();
    let asked_for = index
        .filter(|entry| call.may_see(&entry.model) && (!request.ready || entry.state == BundleState::Ready));
    let models = asked_for.map(|entry: IndexEntry| ModelIndex {
        name: entry.model,
        version: entry.version.to_string(),
        state: entry.state.name().into(),
        reason: entry.reason,
    });
    Ok(RepositoryIndexResponse {
        models: models.collect(),
    })
}

pub(super) async fn load(state: &State, request: &RepositoryModelLoadRequest) -> Result<(), ServerError> {
    check_repository_name(&request.repository_name)?;
    check_load_parameters(request.parameters.keys().map(String::as_str))?;
    state.repository()?.load(&request.model_name).await
}

/// No model depends on another, so that its parameter for that makes no difference.
pub(super) async fn unload(state: &State, request: &RepositoryModelUnloadRequest) -> Result<(), ServerError> {
    check_repository_name(&request.repository_name)?;
    state.repository()?.unload(&request.model_name).await
}
