//! How a bundle was proved: JSON in the ONNX file's `metadata_props`, under [`METADATA_KEY`], which `exporter verify`
//! writes once every compared layer is within the tolerance.

use serde::{Deserialize, Serialize};

/// The key of the entry in ONNX's `metadata_props`.
pub const METADATA_KEY: &str = "ventral.verification";

/// A comparison of a bundle with recorded activations that has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// What computed the bundle's graph: name and version.
    pub runtime: String,
    /// The largest relative error that passed: a layer's largest absolute error over the largest magnitude of its
    /// recorded activations.
    pub tolerance: f64,
    /// The layer with the largest relative error.
    pub worst_layer: String,
    /// Its relative error.
    pub worst_error: f64,
    /// Every layer that was compared, in the order in which they are computed.
    pub layers: Vec<VerifiedLayer>,
    /// BLAKE3 of every image, `[C, H, W]` little-endian float32 as the network gets it, in hexadecimal.
    pub image_digests: Vec<String>,
    /// BLAKE3 of the external data's file when it was verified, in hexadecimal.
    pub data_digest: String,
}

/// One layer that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifiedLayer {
    /// The layer's name.
    pub name: String,
    /// The largest absolute error over the largest magnitude of the recorded activations.
    pub relative_error: f64,
}

impl Verification {
    /// Reads the JSON of a bundle.
    ///
    /// # Errors
    /// Where it isn't the JSON that it should be.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}
