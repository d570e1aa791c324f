//! One ONNX Runtime session: a bundle's graph cut to some layers, ready to run.
//!
//! The cut graph is handed over in memory; its weights are not. ONNX Runtime maps the bundle's data file itself, so that
//! the sessions of a bundle share the same pages of the file and none holds a copy.

use std::ops::Range;
use std::sync::Arc;

use model::WeightType;
use model::manifest::INPUT_NAME;
use ort::value::{DynValue, Tensor, TensorRef};
use prost::Message as _;
use proto::onnx::ModelProto;
use thiserror::Error;

use crate::bundle::Bundle;
use crate::cut::{CutError, cut};
use crate::onnx_runtime::OnnxRuntime;
use crate::weight_files::DETACHED;

/// Tells ONNX Runtime where the external data of a graph in memory lies.
const DATA_FOLDER_KEY: &str = "session.model_external_initializers_file_folder_path";

/// Names optimisations that ONNX Runtime is to leave out.
const DISABLED_OPTIMISATIONS_KEY: &str = "optimization.disable_specified_optimizers";

/// A session for some layers of a bundle. It runs one batch at a time: not all execution providers can do more.
#[derive(Debug)]
pub struct Session {
    session: ort::session::Session,
    outputs: Arc<[Output]>,
}

/// What a session gives.
#[derive(Clone, Debug)]
struct Output {
    name: String,
    /// Of one image.
    shape: Vec<usize>,
}

/// Images as a network's input, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `[N, C, H, W]`.
    pub shape: [usize; 4],
    /// As many values as the shape says.
    pub values: &'a [f32],
}

/// One layer's activations of a batch, in the memory where ONNX Runtime has put them.
#[derive(Debug)]
pub struct LayerOutput {
    tensor: Tensor<f32>,
    images: usize,
    values_per_image: usize,
}

/// Why a session can't be made or run.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The graph lacks an output.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The bundle's folder has a name that ONNX Runtime can't be told.
    #[error("the folder's name is not valid UTF-8")]
    FolderName,
    /// ONNX Runtime refuses the graph.
    #[error("ONNX Runtime can't load the graph")]
    Load(#[source] ort::Error),
    /// ONNX Runtime fails to compute.
    #[error("ONNX Runtime can't compute the graph")]
    Run(#[source] ort::Error),
    /// An output of another shape than the manifest says.
    #[error("layer `{layer}` came out as {found:?}, expected {expected:?}")]
    Shape {
        /// The layer's name.
        layer: String,
        /// The shape of what was computed.
        found: Vec<i64>,
        /// The manifest's.
        expected: Vec<usize>,
    },
}

impl Session {
    /// Cuts the graph and loads it. `layers` are positions in the manifest's list of layers.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn load(runtime: &OnnxRuntime, bundle: &Bundle, layers: &[usize]) -> Result<Self, SessionError> {
        let layers = layers
            .iter()
            .filter_map(|&layer| bundle.manifest.layers.get(layer));
        let outputs: Arc<[Output]> = layers
            .map(|layer| Output {
                name: layer.name.clone(),
                shape: layer.shape.clone(),
            })
            .collect();
        let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
        let mut graph = cut(&bundle.graph, &names)?;
        runtime.provider().adapt(&mut graph);
        let session = load(runtime, graph, bundle)?;
        Ok(Self { session, outputs })
    }

    /// Computes a batch: one entry for each of the session's layers, in their order. Blocks while it computes.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn run(&mut self, batch: Batch<'_>) -> Result<Vec<LayerOutput>, SessionError> {
        let input = TensorRef::from_array_view((batch.shape, batch.values)).map_err(SessionError::Run)?;
        let mut results = self
            .session
            .run(ort::inputs![INPUT_NAME => input])
            .map_err(SessionError::Run)?;
        let mut take = |output: &Output| {
            let result = results.remove(&output.name);
            LayerOutput::new(result, &output.name, batch.shape[0], &output.shape)
        };
        self.outputs.iter().map(&mut take).collect()
    }
}

impl LayerOutput {
    /// What ONNX Runtime gave as `name`, which must be float32 of shape `[images, …shape]`, in memory that can be read.
    ///
    /// # Errors
    /// [`SessionError::Shape`] and [`SessionError::Run`] where it isn't.
    pub fn new(
        result: Option<DynValue>,
        name: &str,
        images: usize,
        shape: &[usize],
    ) -> Result<Self, SessionError> {
        let wrong_shape = |found: &[i64]| SessionError::Shape {
            layer: name.into(),
            found: found.to_vec(),
            expected: [&[images], shape].concat(),
        };
        let result = result.ok_or_else(|| wrong_shape(&[]))?;
        let tensor: Tensor<f32> = result.downcast().map_err(SessionError::Run)?;
        let expected = std::iter::once(&images)
            .chain(shape)
            .map(|&length| i64::try_from(length).ok());
        if !tensor.shape().iter().map(|&length| Some(length)).eq(expected) {
            return Err(wrong_shape(tensor.shape()));
        }
        tensor.try_extract_tensor::<f32>().map_err(SessionError::Run)?;
        Ok(Self {
            tensor,
            images,
            values_per_image: shape.iter().product(),
        })
    }

    /// Images of the batch.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Values of one image.
    pub fn values_per_image(&self) -> usize {
        self.values_per_image
    }

    /// The activations of some images, one image after the other. A range past the end gives fewer.
    pub fn values(&self, images: Range<usize>) -> &[f32] {
        // Checked when it was made: the tensor lies in memory that can be read, and its shape is as said.
        let values = self
            .tensor
            .try_extract_tensor::<f32>()
            .map_or(&[][..], |(_, values)| values);
        let end = (images.end * self.values_per_image).min(values.len());
        let start = (images.start * self.values_per_image).min(end);
        &values[start..end]
    }
}

fn load(
    runtime: &OnnxRuntime,
    mut graph: ModelProto,
    bundle: &Bundle,
) -> Result<ort::session::Session, SessionError> {
    let (folder, files) = (bundle.current_folder(), &bundle.weight_files);
    let weights = bundle.manifest.weights;
    let name = folder.to_str().ok_or(SessionError::FolderName)?;
    if files.are_in(folder) {
        let loaded = load_from(runtime, &graph, Source::Folder(name), weights);
        if loaded.is_ok() || files.are_in(folder) {
            return loaded.map_err(SessionError::Load);
        }
    }
    // The bundle was replaced or removed, and a request still waits for this session. Its weights are copied: ONNX
    // Runtime maps files only by their paths.
    let copy = files.detach(&mut graph);
    load_from(runtime, &graph, Source::Memory(copy), weights).map_err(SessionError::Load)
}

/// Where a session's weights are.
enum Source<'a> {
    /// In files of this folder.
    Folder(&'a str),
    /// In memory, as a file named [`DETACHED`].
    Memory(Arc<[u8]>),
}

fn load_from(
    runtime: &OnnxRuntime,
    graph: &ModelProto,
    source: Source<'_>,
    weights: WeightType,
) -> ort::Result<ort::session::Session> {
    let builder = runtime.provider().session_builder(runtime.environment())?;
    let builder = match source {
        Source::Folder(folder) => builder.with_config_entry(DATA_FOLDER_KEY, folder)?,
        Source::Memory(copy) if copy.is_empty() => builder,
        Source::Memory(copy) => builder.with_external_initializer_file_in_memory(DETACHED, copy)?,
    };
    let mut builder = builder
        // Patterns are remembered for every batch size that ever occurred.
        .with_memory_pattern(false)?;
    if weights == WeightType::Bf16 {
        // It would widen the weights once and for all, into memory of its own.
        builder = builder.with_config_entry(DISABLED_OPTIMISATIONS_KEY, "ConstantFolding")?;
    }
    builder.commit_from_memory(&graph.encode_to_vec())
}
