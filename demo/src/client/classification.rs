//! The likeliest class of each stimulus, over HTTP.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use ureq::Agent;

use crate::stimuli::Stimulus;

/// The likeliest class of a stimulus.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Prediction {
    /// The class's name.
    #[serde(rename = "name")]
    pub class_name: String,
    /// From 0 to 1.
    pub probability: f32,
}

/// What the server answers for one image.
#[derive(Deserialize)]
struct Answer {
    /// Likeliest first.
    predictions: Vec<Prediction>,
}

/// What the server answers where it can't classify.
#[derive(Deserialize)]
struct Refusal {
    error: Reason,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

/// Classifies the stimuli, a request each; returns a prediction for each, in their order.
pub fn classify(url: &str, model: &str, stimuli: &[Stimulus]) -> Result<Vec<Prediction>> {
    let address = format!("{}/v1/models/{model}/classify?top_k=1", url.trim_end_matches('/'));
    // A refusal's body says more than its status.
    let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
    stimuli
        .iter()
        .map(|stimulus| classify_one(&agent, &address, &stimulus.file).with_context(|| stimulus.name.clone()))
        .collect()
}

fn classify_one(agent: &Agent, address: &str, file: &[u8]) -> Result<Prediction> {
    let mut response = agent
        .post(address)
        .header("Content-Type", "image/png")
        .send(file)?;
    let status = response.status();
    let body = response
        .body_mut()
        .read_to_string()
        .context("can't read the answer")?;
    if !status.is_success() {
        let message = serde_json::from_str(&body).map_or(body, |refusal: Refusal| refusal.error.message);
        bail!("the server answers {status}: {message}");
    }
    let answer: Answer = serde_json::from_str(&body).context("the answer isn't the JSON expected")?;
    answer
        .predictions
        .into_iter()
        .next()
        .context("the answer holds no prediction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_read_from_what_the_server_writes() {
        let body = r#"{"model":"lc","version":"1","checkpoint_digest":"blake3:00",
            "predictions":[{"class":9,"name":"Ankle boot","probability":0.875}]}"#;
        let answer: Answer = serde_json::from_str(body).unwrap();
        let expected = Prediction {
            class_name: "Ankle boot".to_owned(),
            probability: 0.875,
        };
        assert_eq!(answer.predictions, [expected]);
    }
}
