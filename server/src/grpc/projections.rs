//! `PutProjection`, `ListProjections`, `DeleteProjection`: projections of a model's layers.

use std::sync::Arc;

use proto::ventral::v1::put_projection_request::Part;
use proto::ventral::v1::{
    DeleteProjectionRequest, DeleteProjectionResponse, ListProjectionsRequest, ListProjectionsResponse,
    Projection as ProjectionMessage, PutProjectionRequest, PutProjectionResponse,
};
use tonic::{Request, Status, Streaming};

use crate::error::ServerError;
use crate::front::call::Call;
use crate::projection::Projection;
use crate::projection::store::ProjectionStore;
use crate::state::State;

/// Takes an upload.
pub(super) async fn put(
    state: &State,
    request: Request<Streaming<PutProjectionRequest>>,
) -> Result<PutProjectionResponse, Status> {
    let call = Arc::clone(Call::of(request.extensions())?);
    let mut request = request.into_inner();
    let first = request.message().await?.and_then(|message| message.part);
    let Some(Part::Start(start)) = first else {
        return Err(wrong("the first message must be `start`"));
    };
    call.use_model(&start.model)?;
    let bundle = &state.bundle(&start.model, &start.version).await?;
    let begin = move |store: &Arc<_>, bundle: &_| ProjectionStore::upload(store, bundle, &start.name);
    let mut upload = state.inference.with_projections(bundle, begin).await??;
    while let Some(message) = request.message().await? {
        match message.part {
            Some(Part::Data(bytes)) => upload.append(&bytes)?,
            Some(Part::Start(_)) => return Err(wrong("only the first message may be `start`")),
            None => return Err(wrong("a message is empty: expected `data`")),
        }
    }
    let finish = move |_: &_, bundle: &_| upload.finish(bundle);
    let projection = state.inference.with_projections(bundle, finish).await??;
    Ok(PutProjectionResponse {
        projection: Some(message(&projection)),
    })
}

/// Lists those of a model.
pub(super) async fn list(
    state: &State,
    request: ListProjectionsRequest,
) -> Result<ListProjectionsResponse, ServerError> {
    let bundle = &state.bundle(&request.model, &request.version).await?;
    let list = |store: &Arc<ProjectionStore>, bundle: &_| store.list(bundle);
    let projections = state.inference.with_projections(bundle, list).await?;
    Ok(ListProjectionsResponse {
        projections: projections.iter().map(|projection| message(projection)).collect(),
    })
}

/// Deletes one.
pub(super) async fn delete(
    state: &State,
    request: DeleteProjectionRequest,
) -> Result<DeleteProjectionResponse, ServerError> {
    let bundle = &state.bundle(&request.model, &request.version).await?;
    let delete = move |store: &Arc<ProjectionStore>, bundle: &_| store.delete(bundle, &request.name);
    state.inference.with_projections(bundle, delete).await??;
    Ok(DeleteProjectionResponse {})
}

fn wrong(message: &str) -> Status {
    ServerError::InvalidArgument(message.into()).into()
}

/// What clients are told of a projection.
pub(super) fn message(projection: &Projection) -> ProjectionMessage {
    ProjectionMessage {
        name: projection.name().into(),
        layer: projection.layer().into(),
        features: projection.features() as u64,
        components: projection.components() as u64,
        stored: projection.is_stored(),
    }
}
