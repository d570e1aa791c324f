//! Opens bundles, trusting nothing: graph, manifest and constants are checked before anything is loaded.

use std::path::{Path, PathBuf};

use model::manifest::{INPUT_NAME, METADATA_KEY, Manifest};
use model::{MappedFile, Verification, verification};
use prost::Message as _;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::tensor_shape_proto::dimension;
use proto::onnx::{GraphProto, ModelProto, ValueInfoProto, type_proto};

use super::{MODEL_FILE, validation};
use crate::error::BundleError;

/// The largest graph file that is read, in bytes. That of a full-size network has less than a hundredth.
const MAX_MODEL_BYTES: u64 = 64 << 20;

/// An open bundle, which has been checked. The weights haven't been read.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    model: ModelProto,
    manifest: Manifest,
}

impl Bundle {
    /// Opens the bundle in a folder.
    ///
    /// # Errors
    /// [`BundleError`] with the file's name: not an ONNX file, no manifest, a graph that doesn't fit its manifest,
    /// constants whose data isn't in the folder or isn't as long as their shapes say.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let path = folder.join(MODEL_FILE);
        let at = |error: BundleError| error.at(&path);
        let map = MappedFile::open(&path)
            .map_err(BundleError::io("open the bundle"))
            .map_err(at)?;
        let found = map.len() as u64;
        if found > MAX_MODEL_BYTES {
            let limit = MAX_MODEL_BYTES;
            return Err(at(BundleError::TooLarge { found, limit }));
        }
        let model = ModelProto::decode(&*map).map_err(|error| at(BundleError::Format(error.to_string())))?;
        let manifest = check(&model, folder).map_err(at)?;
        Ok(Self {
            folder: folder.into(),
            model,
            manifest,
        })
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How the bundle was verified; `None` where it wasn't.
    ///
    /// # Errors
    /// [`BundleError::Verification`] with the file's name.
    pub fn verification(&self) -> Result<Option<Verification>, BundleError> {
        let mut entries = self.model.metadata_props.iter();
        let entry = entries.find(|entry| entry.key == verification::METADATA_KEY);
        let parsed = entry.map(|entry| Verification::parse(&entry.value)).transpose();
        parsed.map_err(|error| BundleError::Verification(error).at(&self.folder.join(MODEL_FILE)))
    }

    /// The graph's file.
    pub fn model(&self) -> &ModelProto {
        &self.model
    }

    /// Where the bundle is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn check(model: &ModelProto, folder: &Path) -> Result<Manifest, BundleError> {
    let json = model
        .metadata_props
        .iter()
        .find(|entry| entry.key == METADATA_KEY)
        .ok_or(BundleError::NotABundle)?;
    let manifest = Manifest::parse(&json.value)?;
    let graph = model
        .graph
        .as_ref()
        .ok_or_else(|| BundleError::Graph("the file has no graph".into()))?;
    interface(graph, &manifest).map_err(BundleError::Graph)?;
    validation::constants(graph, folder)?;
    Ok(manifest)
}

/// The graph's inputs and outputs are those that the manifest promises.
fn interface(graph: &GraphProto, manifest: &Manifest) -> Result<(), String> {
    let input = manifest.architecture.input;
    match graph.input.as_slice() {
        [value] => matches(value, INPUT_NAME, &[input.channels, input.height, input.width])?,
        inputs => return Err(format!("it has {} inputs instead of one", inputs.len())),
    }
    if graph.output.len() != manifest.layers.len() {
        let (outputs, layers) = (graph.output.len(), manifest.layers.len());
        return Err(format!("it has {outputs} outputs for {layers} layers"));
    }
    for (value, layer) in graph.output.iter().zip(&manifest.layers) {
        matches(value, &layer.name, &layer.shape)?;
    }
    Ok(())
}

/// Whether a value is float32 `[N, …shape]` under the given name.
fn matches(value: &ValueInfoProto, name: &str, shape: &[usize]) -> Result<(), String> {
    if value.name != name {
        return Err(format!("it has `{}` in the place of `{name}`", value.name));
    }
    let tensor = value.r#type.as_ref().and_then(|value| value.value.as_ref());
    let tensor = tensor.map(|type_proto::Value::TensorType(tensor)| tensor);
    let float = tensor.filter(|tensor| tensor.elem_type == i32::from(DataType::Float));
    let dimensions = float.and_then(|tensor| tensor.shape.as_ref());
    let fits = dimensions.is_some_and(|dimensions| match dimensions.dim.as_slice() {
        [batch, rest @ ..] => {
            let fixed = rest.iter().map(|dimension| match dimension.value {
                Some(dimension::Value::DimValue(length)) => usize::try_from(length).ok(),
                _ => None,
            });
            matches!(batch.value, Some(dimension::Value::DimParam(_)))
                && fixed.eq(shape.iter().map(|&length| Some(length)))
        }
        [] => false,
    });
    if fits {
        Ok(())
    } else {
        Err(format!("`{name}` is not float32 of the shape [N, …{shape:?}]"))
    }
}
