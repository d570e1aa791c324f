//! What a bundle is: network, layers, sizes, origin and verification, as a table for people and as JSON for programs.
//!
//! Everything comes from the graph's file and from the lengths of the files; only [`check_data`] reads the weights.

mod convolutions;
mod data_file;
mod family;
mod table;

use std::collections::BTreeMap;

use model::{Architecture, Layer, LayerKind, Network, Preprocessing, Verification, WeightType};
use serde::Serialize;

use crate::bundle::{Bundle, DATA_FILE, MODEL_FILE};
use crate::error::BundleError;

pub use convolutions::{InspectedConvolution, StoredWeights};
pub use data_file::{DataCheck, check_data};

/// What a bundle is. Sizes that no computer could hold, which only a forged manifest has, are shown as the largest
/// 64-bit number.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The bundle's folder.
    pub bundle: String,
    /// Of the manifest.
    pub format_version: u32,
    /// Of the ONNX operators.
    pub opset_version: i64,
    /// Of the ONNX file format.
    pub ir_version: i64,
    /// The network's name among those that are known, or its depth: `ResNet-18`, `CIFAR ResNet-20`.
    pub family: String,
    /// The network.
    pub architecture: Architecture,
    /// How weights are stored, and what the graph computes in.
    pub weights: WeightType,
    /// The bundle's outputs, in the order in which they are computed.
    pub layers: Vec<InspectedLayer>,
    /// Every convolution of the network, in call order.
    pub convolutions: Vec<InspectedConvolution>,
    /// Of the whole network and of the bundle's files.
    pub totals: Totals,
    /// How images become the graph's input.
    pub preprocessing: Preprocessing,
    /// In the order of the logits; empty where they aren't known.
    pub class_names: Vec<String>,
    /// Digest of the checkpoint that the bundle was made from.
    pub checkpoint_digest: String,
    /// BLAKE3 of the data file when it was written; empty where the exporter didn't say.
    pub data_digest: String,
    /// Whether the data file is still that one.
    pub data_check: DataCheck,
    /// The checkpoint's provenance.
    pub provenance: BTreeMap<String, serde_json::Value>,
    /// How the bundle was verified; `None` where it wasn't.
    pub verification: Option<InspectedVerification>,
}

/// An output of the bundle.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedLayer {
    /// The layer's name.
    pub name: String,
    /// What computes it.
    pub kind: LayerKind,
    /// Shape of one image's activations.
    pub shape: Vec<usize>,
    /// Numbers that one image gives.
    pub elements: u64,
    /// Their bytes in float32, which is what clients get.
    pub bytes: u64,
}

/// Sums.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Totals {
    /// Trained numbers of the whole network, those of BatchNorm and readout included.
    pub parameters: u64,
    /// Multiply-accumulates of the whole network for one image: convolutions and readout.
    pub macs: u64,
    /// Of the graph's file.
    pub model_bytes: u64,
    /// Of the weights' file.
    pub data_bytes: u64,
}

/// How a bundle was verified.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedVerification {
    /// As the bundle says.
    #[serde(flatten)]
    pub verification: Verification,
    /// Whether the weights that were verified are those of the manifest: their digests are known and equal.
    pub of_these_weights: bool,
}

/// Looks at a bundle. The weights aren't read.
///
/// # Errors
/// [`BundleError`] with the file's name: a verification that can't be read, a file whose length can't be.
pub fn inspect(bundle: &Bundle) -> Result<Inspection, BundleError> {
    let manifest = bundle.manifest();
    let network = network(bundle)?;
    let convolutions = convolutions::of(bundle, &network);
    let readout = product(&[network.readout.features, network.readout.classes]);
    let macs = convolutions.iter().map(|convolution| convolution.macs);
    let totals = Totals {
        parameters: network.parameter_count() as u64,
        macs: macs.fold(readout, u64::saturating_add),
        model_bytes: data_file::length(&bundle.folder().join(MODEL_FILE))?,
        data_bytes: data_file::length(&bundle.folder().join(DATA_FILE))?,
    };
    let verification = bundle.verification()?.map(|verification| InspectedVerification {
        of_these_weights: !manifest.data_digest.is_empty()
            && verification.data_digest == manifest.data_digest,
        verification,
    });
    let opset = bundle
        .model()
        .opset_import
        .iter()
        .find(|opset| opset.domain.is_empty());
    Ok(Inspection {
        bundle: bundle.folder().display().to_string(),
        format_version: manifest.format_version,
        opset_version: opset.map_or(0, |opset| opset.version),
        ir_version: bundle.model().ir_version,
        family: family::of(&manifest.architecture),
        architecture: manifest.architecture.clone(),
        weights: manifest.weights,
        layers: manifest.layers.iter().map(InspectedLayer::new).collect(),
        convolutions,
        totals,
        preprocessing: manifest.preprocessing.clone(),
        class_names: manifest.class_names.clone(),
        checkpoint_digest: manifest.checkpoint_digest.clone(),
        data_digest: manifest.data_digest.clone(),
        data_check: DataCheck::NotAsked,
        provenance: manifest.provenance.clone(),
        verification,
    })
}

impl InspectedLayer {
    fn new(layer: &Layer) -> Self {
        let elements = product(&layer.shape);
        Self {
            name: layer.name.clone(),
            kind: layer.kind,
            shape: layer.shape.clone(),
            elements,
            bytes: elements.saturating_mul(size_of::<f32>() as u64),
        }
    }
}

fn network(bundle: &Bundle) -> Result<Network, BundleError> {
    let network = bundle.manifest().architecture.network();
    network.map_err(|error| BundleError::Manifest(error.into()).at(&bundle.folder().join(MODEL_FILE)))
}

/// Nothing in a manifest bounds the product of an input's sides.
fn product(lengths: &[usize]) -> u64 {
    lengths
        .iter()
        .fold(1, |product: u64, &length| product.saturating_mul(length as u64))
}
