//! What the server and its models are.

use std::sync::Arc;

use model::manifest::INPUT_NAME;

use crate::bundle::Bundle;
use crate::error::ServerError;
use crate::state::State;

/// The server's name.
pub const SERVER_NAME: &str = "ventral";

/// The server's version.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the server has beyond the protocol's core.
pub const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];

/// What computes, as Triton names it.
pub const PLATFORM: &str = "onnxruntime_onnx";

/// The same, where a configuration names it.
pub const BACKEND: &str = "onnxruntime";

/// What a model takes and gives.
pub struct ModelDescription {
    /// What is described.
    pub bundle: Arc<Bundle>,
    /// The versions that can be served, oldest first.
    pub versions: Vec<String>,
}

/// Name and shape of a tensor, without the batch's dimension.
pub struct TensorDescription {
    /// The input's name, or a layer's.
    pub name: String,
    /// `[C, H, W]`, for `fc` `[classes]`.
    pub image_shape: Vec<i64>,
}

impl ModelDescription {
    /// Describes a version of a model, or the newest one where `version` is empty.
    ///
    /// # Errors
    /// Those of [`State::bundle`].
    pub async fn of(state: &State, model: &str, version: &str) -> Result<Self, ServerError> {
        let bundle = state.bundle(model, version).await?;
        let versions = state.repository()?.versions(model)?;
        Ok(Self {
            bundle,
            versions: versions.iter().map(u64::to_string).collect(),
        })
    }

    /// The network's input.
    pub fn input(&self) -> TensorDescription {
        let input = self.bundle.manifest.architecture.input;
        TensorDescription::new(INPUT_NAME, &[input.channels, input.height, input.width])
    }

    /// Its layers, in the order in which they are computed.
    pub fn outputs(&self) -> impl Iterator<Item = TensorDescription> {
        let layers = self.bundle.manifest.layers.iter();
        layers.map(|layer| TensorDescription::new(&layer.name, &layer.shape))
    }
}

impl TensorDescription {
    fn new(name: &str, shape: &[usize]) -> Self {
        // Shapes of networks that fit in memory.
        let length = |&length: &usize| i64::try_from(length).unwrap_or(i64::MAX);
        Self {
            name: name.into(),
            image_shape: shape.iter().map(length).collect(),
        }
    }

    /// The shape with the batch's dimension, which can have any length.
    pub fn shape(&self) -> Vec<i64> {
        [&[-1], self.image_shape.as_slice()].concat()
    }
}
