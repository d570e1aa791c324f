//! `Classify`: the likeliest classes of images.

use proto::ventral::v1::classify_request::Stimuli as ClassifyStimuli;
use proto::ventral::v1::get_activations_request::Stimuli as StimuliMessage;
use proto::ventral::v1::{Classification, ClassifyRequest, ClassifyResponse, Prediction};
use tonic::{Request, Response};

use super::{bounds, messages};
use crate::classification::{self, DEFAULT_TOP_K};
use crate::error::ServerError;
use crate::inference::{Options, Priority};
use crate::state::State;

/// Answers one request.
pub(super) async fn classify(
    state: &State,
    request: Request<ClassifyRequest>,
) -> Result<Response<ClassifyResponse>, ServerError> {
    let deadline = bounds::deadline(&request);
    let request = request.into_inner();
    let bundle = &state.bundle(&request.model, &request.version).await?;
    let options = Options {
        preprocessing: messages::preprocessing(request.preprocessing)?,
        priority: messages::priority(request.priority, Priority::Interactive)?,
        deadline,
        ..Options::default()
    };
    let stimuli = messages::stimuli(request.stimuli.map(|stimuli| match stimuli {
        ClassifyStimuli::Images(images) => StimuliMessage::Images(images),
        ClassifyStimuli::Tensor(tensor) => StimuliMessage::Tensor(tensor),
    }))?;
    let top_k = if request.top_k == 0 {
        DEFAULT_TOP_K
    } else {
        request.top_k as usize
    };
    let classified = classification::classify(&state.inference, bundle, stimuli, top_k, &options).await?;
    let classification = |classification: classification::Classification| Classification {
        predictions: classification.predictions.into_iter().map(prediction).collect(),
        logits: if request.logits {
            classification.logits
        } else {
            Vec::new()
        },
    };
    Ok(Response::new(ClassifyResponse {
        model: bundle.model.clone(),
        version: bundle.version.to_string(),
        checkpoint_digest: bundle.manifest.checkpoint_digest.clone(),
        classifications: classified.images.into_iter().map(classification).collect(),
    }))
}

fn prediction(prediction: classification::Prediction) -> Prediction {
    Prediction {
        // A position among the logits, of which there are fewer than 2³².
        class: u32::try_from(prediction.class).unwrap_or(u32::MAX),
        name: prediction.name,
        probability: prediction.probability,
        logit: prediction.logit,
    }
}
