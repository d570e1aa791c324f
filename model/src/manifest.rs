//! What an exported bundle says about itself: JSON in the ONNX file's `metadata_props`, under [`METADATA_KEY`].
//!
//! A server needs nothing else to preprocess images, name layers and name classes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::architecture::{Architecture, ArchitectureError};
use crate::layer::Layer;
use crate::preprocessing::{Preprocessing, PreprocessingError};

/// The key of the entry in ONNX's `metadata_props`.
pub const METADATA_KEY: &str = "ventral";

/// The name of the ONNX graph's input, `[N, C, H, W]` float32.
pub const INPUT_NAME: &str = "input";

/// The version of the manifest that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// What an exported bundle says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The network.
    pub architecture: Architecture,
    /// The layers that are outputs of the graph, in the order in which they are computed. Each output has the layer's
    /// name and the shape `[N, …layer.shape]`.
    pub layers: Vec<Layer>,
    /// How images become the graph's input.
    pub preprocessing: Preprocessing,
    /// Names of the classes in the order of the logits; empty where they aren't known.
    pub class_names: Vec<String>,
    /// Digest of the checkpoint that the bundle was made from.
    pub checkpoint_digest: String,
    /// The checkpoint's provenance.
    pub provenance: BTreeMap<String, serde_json::Value>,
    /// How weights are stored, and what the graph computes in.
    #[serde(default)]
    pub weights: WeightType,
    /// BLAKE3 of the external data's file, in hexadecimal; empty where the exporter didn't say.
    #[serde(default)]
    pub data_digest: String,
}

/// How the weights of convolutions and locally connected layers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightType {
    /// IEEE single precision, as in the checkpoint.
    #[default]
    Fp32,
    /// IEEE half precision; the graph computes in it up to the average pooling.
    Fp16,
    /// bfloat16, widened before every product; the graph computes in single precision.
    Bf16,
}

impl WeightType {
    /// Bytes of one weight.
    pub fn bytes(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Fp16 | Self::Bf16 => 2,
        }
    }

    /// As in the manifest: `fp32`, `fp16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }
}

/// Why a manifest can't be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not the JSON that it should be.
    #[error("the bundle's manifest is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version of the exporter.
    #[error(
        "bundle format version {found}; this program reads version {FORMAT_VERSION}: export the checkpoint again"
    )]
    Version {
        /// The bundle's version.
        found: u32,
    },
    /// An architecture that can't be built.
    #[error("the bundle's manifest is not valid")]
    Architecture(#[from] ArchitectureError),
    /// A preprocessing that doesn't fit the architecture.
    #[error("the bundle's manifest is not valid")]
    Preprocessing(#[from] PreprocessingError),
    /// Parts that contradict each other.
    #[error("the bundle's manifest is not valid: {0}")]
    Inconsistent(String),
}

impl Manifest {
    /// Reads the JSON of a bundle and checks that its parts fit together.
    ///
    /// # Errors
    /// [`ManifestError`] with what is wrong.
    pub fn parse(json: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_str(json)?;
        if format_version != FORMAT_VERSION {
            return Err(ManifestError::Version {
                found: format_version,
            });
        }
        let manifest: Self = serde_json::from_str(json)?;
        let known = manifest.architecture.network()?.layers();
        manifest.preprocessing.check(manifest.architecture.input)?;
        if let Some(layer) = manifest.layers.iter().find(|layer| !known.contains(layer)) {
            let message = format!("layer `{}` is not one of its architecture", layer.name);
            return Err(ManifestError::Inconsistent(message));
        }
        let (names, classes) = (manifest.class_names.len(), manifest.architecture.classes);
        if names != 0 && names != classes {
            let message = format!("{names} class names for {classes} classes");
            return Err(ManifestError::Inconsistent(message));
        }
        Ok(manifest)
    }

    /// A layer by name.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.name == name)
    }
}
