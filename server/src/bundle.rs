//! A bundle: one version of a model, as `exporter export` writes it. Nothing in its files is trusted before it is
//! checked here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::manifest::{INPUT_NAME, METADATA_KEY, ManifestError};
use model::{Layer, LayerKind, Manifest};
use prost::Message as _;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::tensor_shape_proto::dimension;
use proto::onnx::{GraphProto, ModelProto, TypeProto, ValueInfoProto, type_proto};
use thiserror::Error;

use crate::external_data::{self, DataFile, TensorError};
use crate::weight_files::WeightFiles;

/// The graph's file in a bundle's folder.
pub const GRAPH_FILE: &str = "model.onnx";

/// A protobuf message has no more bytes than this; weights lie in files of their own.
const GRAPH_BYTES: u64 = i32::MAX as u64;

/// The [`Bundle::id`] of the next one.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One version of a model.
#[derive(Debug)]
pub struct Bundle {
    /// Of this bundle alone: one that replaces it has another.
    pub id: u64,
    /// The model's name: the folder's in the repository.
    pub model: String,
    /// Positive.
    pub version: u64,
    /// Absolute, without symbolic links.
    pub folder: PathBuf,
    /// What the bundle says about itself.
    pub manifest: Manifest,
    /// The whole network; sessions cut their graphs from it.
    pub graph: ModelProto,
    /// The files of the weights.
    pub weight_files: WeightFiles,
    open_folder: OpenFolder,
}

/// Why a bundle can't be served.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file or folder that can't be read.
    #[error("`{}` can't be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A graph that no protobuf message can hold.
    #[error("`{GRAPH_FILE}` has {found} bytes, an ONNX graph has at most {GRAPH_BYTES}")]
    TooLarge {
        /// The file's size.
        found: u64,
    },
    /// A file that is no ONNX graph.
    #[error("`{GRAPH_FILE}` is not an ONNX file")]
    Decode(#[from] prost::DecodeError),
    /// A graph of another origin.
    #[error(
        "`{GRAPH_FILE}` has no entry `{METADATA_KEY}` in its metadata: only what `exporter export` writes can be served"
    )]
    NoManifest,
    /// A manifest that can't be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A bundle without layers.
    #[error("the manifest lists no layers")]
    NoLayers,
    /// The same name twice.
    #[error("the manifest lists layer `{0}` more than once")]
    DuplicateLayer(String),
    /// A graph with another input than the manifest says.
    #[error("the graph's input must be `{INPUT_NAME}`, float32 of shape {expected}; it has: {found}")]
    Input {
        /// From the manifest.
        expected: String,
        /// The graph's inputs.
        found: String,
    },
    /// A layer of the manifest that the graph doesn't give.
    #[error("the graph has no output `{0}`, which the manifest lists as a layer")]
    NoOutput(String),
    /// A tensor whose data can't be trusted.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Bundle {
    /// Reads and checks a bundle. Weights in files of their own are not read.
    ///
    /// # Errors
    /// [`BundleError`] with what is wrong.
    pub fn load(model: &str, version: u64, folder: &Path) -> Result<Self, BundleError> {
        let read = |path: &Path, source| BundleError::Read {
            path: path.into(),
            source,
        };
        let open_folder = OpenFolder::open(folder).map_err(|source| read(folder, source))?;
        let folder = open_folder.path.canonicalize();
        let folder = folder.map_err(|source| read(&open_folder.path, source))?;
        let path = folder.join(GRAPH_FILE);
        let size = path.metadata().map_err(|source| read(&path, source))?.len();
        if size > GRAPH_BYTES {
            return Err(BundleError::TooLarge { found: size });
        }
        let bytes = std::fs::read(&path).map_err(|source| read(&path, source))?;
        let graph = ModelProto::decode(bytes.as_slice())?;
        let properties = &graph.metadata_props;
        let json = properties.iter().find(|property| property.key == METADATA_KEY);
        let manifest = Manifest::parse(&json.ok_or(BundleError::NoManifest)?.value)?;
        let empty = GraphProto::default();
        let data_files = check_graph(&manifest, graph.graph.as_ref().unwrap_or(&empty), &folder)?;
        let weight_files = WeightFiles::open(&folder, &data_files).map_err(|source| read(&folder, source))?;
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            model: model.into(),
            version,
            folder,
            manifest,
            graph,
            weight_files,
            open_folder,
        })
    }

    /// Where to read the bundle's files: a path that stays with the folder that was loaded, where the system has such
    /// paths, even when another folder takes its name.
    pub fn current_folder(&self) -> &Path {
        &self.open_folder.path
    }

    /// Bytes of the weights' files, which sessions map.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_files.bytes()
    }

    /// A layer's position in the manifest's list.
    pub fn layer_position(&self, name: &str) -> Option<usize> {
        self.manifest.layers.iter().position(|layer| layer.name == name)
    }

    /// The layer that is computed where none is asked for: the readout, or the last one where it wasn't exported.
    pub fn default_layer(&self) -> Option<&Layer> {
        self.readout().or_else(|| self.manifest.layers.last())
    }

    /// The layer whose activations are the logits, if it was exported.
    pub fn readout(&self) -> Option<&Layer> {
        let mut layers = self.manifest.layers.iter();
        layers.find(|layer| layer.kind == LayerKind::Readout)
    }

    /// Names of the layers in the order in which they are computed.
    pub fn layer_names(&self) -> Vec<String> {
        self.manifest
            .layers
            .iter()
            .map(|layer| layer.name.clone())
            .collect()
    }
}

/// A folder that is held open, so that its files can still be found when it is renamed.
#[derive(Debug)]
struct OpenFolder {
    path: PathBuf,
    /// What the path refers to, where it does.
    _handle: Option<File>,
}

impl OpenFolder {
    #[cfg(target_os = "linux")]
    fn open(folder: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let handle = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        // Without /proc, the folder's own name has to do.
        let path = if path.is_dir() { path } else { folder.into() };
        let _handle = Some(handle);
        Ok(Self { path, _handle })
    }

    #[cfg(not(target_os = "linux"))]
    fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.canonicalize()?;
        Ok(Self { path, _handle: None })
    }
}

fn check_graph(manifest: &Manifest, graph: &GraphProto, folder: &Path) -> Result<Vec<DataFile>, BundleError> {
    if manifest.layers.is_empty() {
        return Err(BundleError::NoLayers);
    }
    for (position, layer) in manifest.layers.iter().enumerate() {
        if manifest.layers[..position]
            .iter()
            .any(|other| other.name == layer.name)
        {
            return Err(BundleError::DuplicateLayer(layer.name.clone()));
        }
        if !graph.output.iter().any(|output| output.name == layer.name) {
            return Err(BundleError::NoOutput(layer.name.clone()));
        }
    }
    check_input(manifest, graph)?;
    Ok(external_data::check(graph, folder)?)
}

/// The graph has one input besides its weights, and the manifest's shape fits it.
fn check_input(manifest: &Manifest, graph: &GraphProto) -> Result<(), BundleError> {
    let is_weight = |input: &ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name == input.name);
    let inputs: Vec<_> = graph.input.iter().filter(|input| !is_weight(input)).collect();
    let shape = manifest.architecture.input;
    let image = [shape.channels, shape.height, shape.width];
    match inputs.as_slice() {
        [input] if input.name == INPUT_NAME && is_images(input.r#type.as_ref(), image) => Ok(()),
        _ => {
            let names: Vec<_> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
            Err(BundleError::Input {
                expected: format!("[N, {}, {}, {}]", image[0], image[1], image[2]),
                found: names.join(", "),
            })
        }
    }
}

/// Whether a type is float32 `[N, C, H, W]` with any `N`.
fn is_images(r#type: Option<&TypeProto>, image: [usize; 3]) -> bool {
    let Some(type_proto::Value::TensorType(tensor)) = r#type.and_then(|r#type| r#type.value.as_ref()) else {
        return false;
    };
    let Some(shape) = &tensor.shape else {
        return false;
    };
    let [batch, dimensions @ ..] = shape.dim.as_slice() else {
        return false;
    };
    let fits = |(dimension, length): (&Option<dimension::Value>, usize)| matches!(dimension, Some(dimension::Value::DimValue(value)) if usize::try_from(*value) == Ok(length));
    tensor.elem_type == DataType::Float as i32
        && !matches!(batch.value, Some(dimension::Value::DimValue(_)))
        && dimensions.len() == image.len()
        && dimensions
            .iter()
            .map(|dimension| &dimension.value)
            .zip(image)
            .all(fits)
}
