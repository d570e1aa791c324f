//! `GET /v1/models/{model}/projections`, `PUT` and `DELETE /v1/models/{model}/projections/{name}`: projections of a
//! model's layers.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::{ModelPath, body};
use crate::error::ServerError;
use crate::front::call::Call;
use crate::projection::Projection;
use crate::projection::store::ProjectionStore;
use crate::state::State;

/// The part of the address after `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// Version of the model; empty: the newest.
    #[serde(default)]
    version: String,
}

/// What is told of a projection.
#[derive(Serialize)]
struct Description<'a> {
    name: &'a str,
    layer: &'a str,
    features: usize,
    components: usize,
    stored: bool,
}

#[derive(Serialize)]
struct List<'a> {
    projections: Vec<Description<'a>>,
}

/// Lists them.
pub(super) async fn list(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
    path: web::Path<ModelPath>,
    query: web::Query<Query>,
) -> Result<HttpResponse, ServerError> {
    call.use_model(&path.model)?;
    let bundle = &state.bundle(&path.model, path.version(&query.version)).await?;
    let list = |store: &Arc<ProjectionStore>, bundle: &_| store.list(bundle);
    let projections = state.inference.with_projections(bundle, list).await?;
    let projections = projections
        .iter()
        .map(|projection| describe(projection))
        .collect();
    Ok(HttpResponse::Ok().json(List { projections }))
}

/// Takes an upload: the body is a safetensors file.
pub(super) async fn put(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
    path: web::Path<ModelPath>,
    query: web::Query<Query>,
    mut payload: web::Payload,
) -> Result<HttpResponse, ServerError> {
    call.use_model(&path.model)?;
    let bundle = &state.bundle(&path.model, path.version(&query.version)).await?;
    let name = path.into_inner().name;
    let begin = move |store: &Arc<_>, bundle: &_| ProjectionStore::upload(store, bundle, &name);
    let mut upload = state.inference.with_projections(bundle, begin).await??;
    while let Some(bytes) = payload.next().await {
        upload.append(&bytes.map_err(|error| body::broken(&error))?)?;
    }
    let finish = move |_: &_, bundle: &_| upload.finish(bundle);
    let projection = state.inference.with_projections(bundle, finish).await??;
    Ok(HttpResponse::Created().json(describe(&projection)))
}

/// Deletes one.
pub(super) async fn delete(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
    path: web::Path<ModelPath>,
    query: web::Query<Query>,
) -> Result<HttpResponse, ServerError> {
    call.use_model(&path.model)?;
    let bundle = &state.bundle(&path.model, path.version(&query.version)).await?;
    let name = path.into_inner().name;
    let delete = move |store: &Arc<ProjectionStore>, bundle: &_| store.delete(bundle, &name);
    state.inference.with_projections(bundle, delete).await??;
    Ok(HttpResponse::NoContent().finish())
}

fn describe(projection: &Projection) -> Description<'_> {
    Description {
        name: projection.name(),
        layer: projection.layer(),
        features: projection.features(),
        components: projection.components(),
        stored: projection.is_stored(),
    }
}
