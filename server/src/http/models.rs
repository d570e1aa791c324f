//! `GET /v1/models`: the models that are served and that the caller may use, with their versions, newest last, and what
//! those take; and what computes them.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::error::ServerError;
use crate::front::call::Call;
use crate::repository::{IndexEntry, memory};
use crate::state::State;

#[derive(Serialize)]
struct Models<'a> {
    models: Vec<Model>,
    execution_provider: Provider<'a>,
}

#[derive(Serialize)]
struct Provider<'a> {
    name: &'a str,
    /// Why, for people.
    reason: &'a str,
}

#[derive(Serialize)]
struct Model {
    name: String,
    versions: Vec<String>,
    /// One for each version.
    bundles: Vec<Bundle>,
}

#[derive(Serialize)]
struct Bundle {
    version: String,
    /// Whether it is in memory; otherwise the next request loads it.
    loaded: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
}

/// Answers one request.
pub(super) async fn list(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
) -> Result<HttpResponse, ServerError> {
    let served = state.repository()?.served();
    let served: Vec<_> = served.filter(|entry| call.may_see(&entry.model)).collect();
    let loaded = served.iter().filter_map(|entry| entry.loaded.as_ref());
    let resident = memory::resident_weights(loaded.map(|loaded| loaded.bundle.clone()).collect()).await;
    let mut models: Vec<Model> = Vec::new();
    for IndexEntry {
        model,
        version,
        reason,
        loaded,
        ..
    } in served
    {
        let bundle = Bundle {
            version: version.to_string(),
            loaded: loaded.is_some(),
            reason,
            load_seconds: loaded.as_ref().map(|loaded| loaded.load_time.as_secs_f64()),
            weight_bytes: loaded.as_ref().map(|loaded| loaded.bundle.weight_bytes()),
            resident_bytes: loaded.and_then(|loaded| resident.get(&loaded.bundle.id).copied()),
        };
        if models.last().is_none_or(|last| last.name != model) {
            models.push(Model {
                name: model,
                versions: Vec::new(),
                bundles: Vec::new(),
            });
        }
        if let Some(last) = models.last_mut() {
            last.versions.push(bundle.version.clone());
            last.bundles.push(bundle);
        }
    }
    let provider = state.inference.provider();
    Ok(HttpResponse::Ok().json(Models {
        models,
        execution_provider: Provider {
            name: provider.name(),
            reason: provider.reason(),
        },
    }))
}
