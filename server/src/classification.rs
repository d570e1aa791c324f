//! From images to the classes that the network finds likeliest.

use std::sync::Arc;

use serde::Serialize;

use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError};
use crate::inference::{Activations, Inference, Options, Timings};
use crate::stimuli::{Stimuli, TensorStimuli};

/// A class and how likely it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Position among the logits.
    pub class: usize,
    /// The class's name; its position where the bundle has no names.
    pub name: String,
    /// In 0..=1.
    pub probability: f64,
    /// What the network computed.
    pub logit: f32,
}

/// What an image is taken for.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The likeliest classes, likeliest first.
    pub predictions: Vec<Prediction>,
    /// What the network computed for all classes.
    pub logits: Vec<f32>,
}

/// What images are taken for.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// One entry an image, in their order.
    pub images: Vec<Classification>,
    /// How long it took.
    pub timings: Timings,
}

/// Bytes of logits that are sorted without asking another thread.
const SMALL_LOGITS: usize = 64 << 10;

/// Classes that an image gets where a request doesn't say how many.
pub const DEFAULT_TOP_K: usize = 5;

/// The `top_k` likeliest classes (all, if there are fewer) of every image; of `options`, what concerns the activations'
/// form has no meaning here.
///
/// # Errors
/// Those of [`Inference::infer`]; [`ServerError::LayerNotFound`] where the bundle was exported without its readout.
pub async fn classify(
    inference: &Inference,
    bundle: &Arc<Bundle>,
    stimuli: Stimuli,
    top_k: usize,
    options: &Options,
) -> Result<Classified, ServerError> {
    let readout = bundle
        .readout()
        .ok_or_else(|| ServerError::layer_not_found(bundle, "fc"))?;
    let classes: usize = readout.shape.iter().product();
    let layers = [readout.name.clone()];
    let options = Options {
        preprocessing: options.preprocessing,
        priority: options.priority,
        exclusive: options.exclusive,
        deadline: options.deadline,
        ..Options::default()
    };
    // To say what is wrong, if need be.
    let tensor = match &stimuli {
        Stimuli::Tensor(tensor) => Some(tensor.clone()),
        Stimuli::Images(_) => None,
    };
    let answer = inference.infer(bundle, stimuli, &layers, &options).await?;
    let timings = answer.timings;
    let logits = answer.activations.into_iter().next();
    let data = logits.map(Activations::into_bytes).unwrap_or_default();
    let is_small = data.len() <= SMALL_LOGITS;
    let sort = {
        let bundle = Arc::clone(bundle);
        move || sorted(&bundle, &data, classes, top_k, tensor.as_ref())
    };
    let images = if is_small {
        sort()
    } else {
        let sorted = tokio::task::spawn_blocking(sort).await;
        sorted.map_err(InternalError::from)?
    };
    Ok(Classified {
        images: images?,
        timings,
    })
}

/// What images are taken for by their logits, little-endian float32.
fn sorted(
    bundle: &Bundle,
    data: &[u8],
    classes: usize,
    top_k: usize,
    tensor: Option<&TensorStimuli>,
) -> Result<Vec<Classification>, ServerError> {
    let value = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
    let images = data.chunks_exact(classes * size_of::<f32>()).map(|logits| {
        let logits: Vec<f32> = logits.chunks_exact(size_of::<f32>()).map(value).collect();
        if !logits.iter().all(|logit| logit.is_finite()) {
            if let Some((position, value)) = tensor.and_then(TensorStimuli::not_finite) {
                let problem = format!("its value at position {position} (counted from 0) is {value}");
                return Err(ServerError::Tensor(problem));
            }
            return Err(ServerError::Internal(InternalError::NotFinite {
                model: bundle.model.clone(),
                version: bundle.version,
            }));
        }
        let predictions = top(&logits, &bundle.manifest.class_names, top_k);
        Ok(Classification { predictions, logits })
    });
    images.collect()
}

/// Probabilities of finite logits. The greatest logit is subtracted first, so that no exponential overflows.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let logits = logits.iter().map(|&logit| f64::from(logit));
    let greatest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<_> = logits.map(|logit| (logit - greatest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|exponential| exponential / sum).collect()
}

/// The likeliest classes; of equal ones, the earlier first.
fn top(logits: &[f32], names: &[String], top_k: usize) -> Vec<Prediction> {
    let probabilities = softmax(logits);
    let mut classes: Vec<usize> = (0..probabilities.len()).collect();
    classes.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    classes.truncate(top_k);
    classes
        .into_iter()
        .map(|class| Prediction {
            class,
            name: names.get(class).cloned().unwrap_or_else(|| class.to_string()),
            probability: probabilities[class],
            logit: logits[class],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_neither_overflows_nor_loses_small_differences() {
        let probabilities = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(probabilities, [0.5, 0.5, 0.0]);
        let probabilities = softmax(&[0.0, 3.0_f32.ln()]);
        assert!((probabilities[1] - 0.75).abs() < 1e-7, "{probabilities:?}");
    }

    #[test]
    fn the_likeliest_come_first_and_equal_ones_in_order() {
        let predictions = top(&[0.1, 0.4, 0.1, 0.4], &[], 3);
        let classes: Vec<_> = predictions.iter().map(|prediction| prediction.class).collect();
        assert_eq!(classes, [1, 3, 0]);
        assert_eq!(predictions[0].name, "1");
        assert_eq!(top(&[0.3, 0.7], &["cat".into(), "dog".into()], 9)[0].name, "dog");
    }
}
