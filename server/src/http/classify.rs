//! `POST /v1/models/{model}/classify`: the likeliest classes of an image, or of several images in a form.

use std::sync::Arc;

use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::ModelPath;
use super::body::{self, Body};
use crate::bundle::Bundle;
use crate::classification::{self, Classification, DEFAULT_TOP_K, Prediction};
use crate::error::{InternalError, ServerError};
use crate::front::call::Call;
use crate::inference::Options;
use crate::state::State;
use crate::stimuli::Stimuli;

/// Numbers that are written without asking another thread.
const SMALL_ANSWER: usize = 4096;

/// The part of the address after `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// How many classes; at least 1.
    #[serde(default = "default_top_k")]
    top_k: usize,
    /// Version of the model; empty: the newest.
    #[serde(default)]
    version: String,
    /// Whether the logits of all classes are wanted too.
    #[serde(default)]
    logits: bool,
}

/// The answer for one image.
#[derive(Serialize)]
struct Answer<'a> {
    model: &'a str,
    version: String,
    checkpoint_digest: &'a str,
    predictions: Vec<Prediction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
}

/// Answers one request: an object for an image, a list of them, in the order of its files, for a form.
pub(super) async fn classify(
    state: web::Data<State>,
    call: web::ReqData<Arc<Call>>,
    path: web::Path<ModelPath>,
    query: web::Query<Query>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ServerError> {
    call.use_model(&path.model)?;
    let bundle = &state.bundle(&path.model, path.version(&query.version)).await?;
    if query.top_k == 0 {
        return Err(ServerError::InvalidArgument("`top_k` must be at least 1".into()));
    }
    let (body, memory) = body::read(&request, payload, &state, &[]).await?;
    let (images, is_form) = match body {
        Body::One(image) => (vec![image], false),
        Body::Form(form) => (form.files, true),
    };
    let (stimuli, options) = (Stimuli::Images(images), Options::default());
    // Counted with everything else of the request from here.
    drop(memory);
    let classified =
        classification::classify(&state.inference, bundle, stimuli, query.top_k, &options).await?;
    let images = classified.images;
    let predictions = images.first().map_or(0, |image| {
        image.predictions.len() + if query.logits { image.logits.len() } else { 0 }
    });
    let is_small = images.len() * predictions <= SMALL_ANSWER;
    let write = {
        let bundle = Arc::clone(bundle);
        move || write(&bundle, images, query.logits, is_form)
    };
    let json = if is_small {
        write()
    } else {
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(InternalError::from)?
    };
    let mut response = HttpResponse::Ok();
    Ok(response
        .content_type(ContentType::json())
        .body(json.map_err(InternalError::from)?))
}

/// The answer's JSON.
fn write(
    bundle: &Bundle,
    images: Vec<Classification>,
    logits: bool,
    is_form: bool,
) -> serde_json::Result<Vec<u8>> {
    let mut answers = images.into_iter().map(|classification| Answer {
        model: &bundle.model,
        version: bundle.version.to_string(),
        checkpoint_digest: &bundle.manifest.checkpoint_digest,
        predictions: classification.predictions,
        logits: logits.then_some(classification.logits),
    });
    if is_form {
        serde_json::to_vec(&answers.collect::<Vec<_>>())
    } else {
        serde_json::to_vec(&answers.next())
    }
}

fn default_top_k() -> usize {
    DEFAULT_TOP_K
}
