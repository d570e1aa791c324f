//! What models take and give, how they are configured, whether they are ready, and how often they were asked.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::Named;
use super::error::ProtocolError;
use crate::front::call::Call;
use crate::oip::DATATYPE;
use crate::oip::metadata::{BACKEND, ModelDescription, PLATFORM, TensorDescription};
use crate::oip::statistics::{self, Total};
use crate::state::State;

pub(super) async fn metadata(
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, version } = Named::of(&request)?;
    let model = ModelDescription::of(&state, &model, &version).await?;
    let tensor = |tensor: TensorDescription| json!({"name": tensor.name, "datatype": DATATYPE, "shape": tensor.shape()});
    Ok(HttpResponse::Ok().json(json!({
        "name": model.bundle.model,
        "versions": model.versions,
        "platform": PLATFORM,
        "inputs": [tensor(model.input())],
        "outputs": model.outputs().map(tensor).collect::<Value>(),
    })))
}

pub(super) async fn config(
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, version } = Named::of(&request)?;
    let model = ModelDescription::of(&state, &model, &version).await?;
    let tensor = |tensor: TensorDescription| json!({"name": tensor.name, "data_type": "TYPE_FP32", "dims": tensor.image_shape});
    Ok(HttpResponse::Ok().json(json!({
        "name": model.bundle.model,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"all": {}},
        "max_batch_size": state.limits.images,
        "input": [tensor(model.input())],
        "output": model.outputs().map(tensor).collect::<Value>(),
    })))
}

/// 200 where requests are answered, 503 where they aren't now, 404 where there is no such model.
pub(super) async fn ready(
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, version } = Named::of(&request)?;
    if !state.repository()?.is_ready(&model, &version)? {
        return Ok(HttpResponse::ServiceUnavailable().json(json!({"name": model, "ready": false})));
    }
    Ok(HttpResponse::Ok().json(json!({"name": model, "ready": true})))
}

pub(super) async fn statistics(
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ProtocolError> {
    let Named { model, version } = Named::of(&request)?;
    let entries = statistics::entries(&state, &model, &version)?;
    Ok(answer_statistics(entries))
}

pub(super) async fn all_statistics(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
) -> Result<HttpResponse, ProtocolError> {
    let mut entries = statistics::entries(&state, "", "")?;
    entries.retain(|entry| call.may_see(&entry.model));
    Ok(answer_statistics(entries))
}

fn answer_statistics(entries: Vec<statistics::Entry>) -> HttpResponse {
    let total = |total: Total| json!({"count": total.count, "ns": total.nanoseconds});
    let none = || total(Total::default());
    let bundle = |entry: statistics::Entry| {
        let counted = entry.statistics;
        let memory = entry
            .weight_bytes
            .map(|bytes| json!({"type": "CPU", "id": 0, "byte_size": bytes}));
        json!({
            "name": entry.model,
            "version": entry.version.to_string(),
            "last_inference": counted.last_inference,
            "inference_count": counted.images,
            "execution_count": counted.batches,
            "inference_stats": {
                "success": total(counted.success),
                "fail": total(counted.fail),
                "queue": total(counted.queue),
                "compute_input": total(counted.decode),
                "compute_infer": total(counted.compute),
                "compute_output": total(counted.reduce),
                "cache_hit": none(),
                "cache_miss": none(),
            },
            "batch_stats": [],
            "memory_usage": memory.into_iter().collect::<Value>(),
        })
    };
    HttpResponse::Ok().json(json!({"model_stats": entries.into_iter().map(bundle).collect::<Value>()}))
}
