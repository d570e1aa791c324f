//! The authors' checkpoints: `torch.save` of a dictionary with `model_state_dict`, whose locally connected weights are
//! `[Cin, Cout, H_out, W_out, k, k]`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use model::checkpoint::{self, Dtype, View};
use model::network::TensorRole;
use model::{CheckpointHeader, Network, Preprocessing};

use super::ImportError;
use super::archive::TorchArchive;
use super::infer::{StateDict, architecture};
use super::pickle::{ElementType, Pickle, TensorReference, Value};

/// What a PyTorch checkpoint doesn't say.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Height and width of the input; needed for convolutional networks.
    pub input_size: Option<(usize, usize)>,
    /// How images become the network's input; ImageNet's where `None` and the network takes colour images.
    pub preprocessing: ImportPreprocessing,
    /// Names of the classes in the order of the logits; may be empty.
    pub class_names: Vec<String>,
}

/// The preprocessing of an imported network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ImportPreprocessing {
    /// Resize, centre crop, ImageNet's mean and deviation.
    #[default]
    Imagenet,
    /// Stretched to the input size, values scaled to 0..1.
    UnitRange,
}

/// Imports a checkpoint and returns its header and digest.
///
/// # Errors
/// [`ImportError`] with the file's name; nothing is written then.
pub fn import(
    source: &Path,
    output: &Path,
    options: &ImportOptions,
) -> Result<(CheckpointHeader, String), ImportError> {
    let at = |error: ImportError| ImportError::At {
        path: source.into(),
        source: Box::new(error),
    };
    let archive = TorchArchive::open(source).map_err(at)?;
    let (header, tensors) = convert(&archive, source, options).map_err(at)?;
    let digest = checkpoint::write(output, &header, &tensors)?;
    Ok((header, digest))
}

type Tensors<'a> = Vec<(String, ImportedTensor<'a>)>;

fn convert<'a>(
    archive: &'a TorchArchive,
    source: &Path,
    options: &ImportOptions,
) -> Result<(CheckpointHeader, Tensors<'a>), ImportError> {
    let state = state_dict(archive.pickle())?;
    let architecture = architecture(&state, options.input_size)?;
    let network = architecture.network()?;
    let tensors = tensors(archive, &network, &state)?;
    let preprocessing = match options.preprocessing {
        ImportPreprocessing::Imagenet if architecture.input.channels == 3 => {
            Preprocessing::imagenet(architecture.input)
        }
        _ => Preprocessing::unit_range(architecture.input),
    };
    let mut provenance = BTreeMap::new();
    let file = source.file_name().map(|name| name.to_string_lossy().into_owned());
    provenance.insert("imported_from".into(), file.into());
    if let Some(Value::Integer(epoch)) = archive.pickle().entry(archive.pickle().root(), "epoch") {
        provenance.insert("epoch".into(), (*epoch).into());
    }
    let class_names = options.class_names.clone();
    Ok((
        CheckpointHeader {
            architecture,
            preprocessing,
            class_names,
            provenance,
        },
        tensors,
    ))
}

/// The checkpoint's tensors by name; `module.`, which data-parallel training puts before names, is taken off.
fn state_dict(pickle: &Pickle) -> Result<StateDict, ImportError> {
    let root = pickle.root();
    let nested = ["model_state_dict", "state_dict"]
        .iter()
        .find_map(|key| pickle.entry(root, key));
    let Value::Dictionary(entries) = nested.unwrap_or(root) else {
        return Err(ImportError::Network(
            "the checkpoint is no dictionary of tensors".into(),
        ));
    };
    let mut state = StateDict::new();
    for &(name, value) in entries {
        if let (Value::Text(name), Value::Tensor(tensor)) = (pickle.value(name), pickle.value(value)) {
            state.insert(
                name.strip_prefix("module.").unwrap_or(name).to_owned(),
                tensor.clone(),
            );
        }
    }
    if state.is_empty() {
        let message = "the checkpoint holds no tensors, neither under `model_state_dict` nor by themselves";
        return Err(ImportError::Network(message.into()));
    }
    Ok(state)
}

fn tensors<'a>(
    archive: &'a TorchArchive,
    network: &Network,
    state: &StateDict,
) -> Result<Tensors<'a>, ImportError> {
    let local: BTreeMap<String, &model::Convolution> = network
        .convolutions()
        .filter(|geometry| geometry.locally_connected)
        .map(|geometry| (geometry.weight_name(), geometry))
        .collect();
    let mut tensors = Tensors::new();
    for spec in network.tensors() {
        let reference = state.get(&spec.name).ok_or_else(|| {
            ImportError::Network(format!(
                "there is no tensor `{}`, though the other tensors show a network that has it",
                spec.name
            ))
        })?;
        let (shape, order) = match local.get(&spec.name) {
            Some(geometry) => {
                let (k, output) = (geometry.kernel_size, geometry.output);
                let shape = vec![
                    geometry.in_channels,
                    geometry.out_channels,
                    output.height,
                    output.width,
                    k,
                    k,
                ];
                // From (i, o, h, w, a, b) to (h, w, a, b, i, o).
                (shape, vec![2, 3, 4, 5, 0, 1])
            }
            None => (spec.shape.clone(), (0..spec.shape.len()).collect()),
        };
        let found: Vec<usize> = reference
            .shape
            .iter()
            .map(|&length| usize::try_from(length).unwrap_or(usize::MAX))
            .collect();
        if found != shape {
            return Err(ImportError::Network(format!(
                "`{}` has shape {found:?}; the network that the other tensors show has {shape:?} (is --input-size right?)",
                spec.name
            )));
        }
        let dtype = match spec.role {
            TensorRole::BatchCount => Dtype::I64,
            TensorRole::Parameter | TensorRole::RunningStatistic => Dtype::F32,
        };
        let bytes = archive.storage(reference)?;
        let tensor = ImportedTensor::new(reference, bytes, dtype, order, spec.shape)?;
        tensors.push((spec.name, tensor));
    }
    let known: std::collections::HashSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    match state.keys().find(|name| !known.contains(name.as_str())) {
        Some(name) => Err(ImportError::Network(format!(
            "there is a tensor `{name}`, which the network that the other tensors show doesn't have"
        ))),
        None => Ok(tensors),
    }
}

/// A tensor of the archive, permuted when its bytes are asked for.
struct ImportedTensor<'a> {
    bytes: &'a [u8],
    element: ElementType,
    offset: usize,
    /// Length and stride of every dimension, in the new order.
    dimensions: Vec<(usize, usize)>,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl<'a> ImportedTensor<'a> {
    fn new(
        reference: &TensorReference,
        bytes: &'a [u8],
        dtype: Dtype,
        order: Vec<usize>,
        shape: Vec<usize>,
    ) -> Result<Self, ImportError> {
        let element = reference.storage.element;
        let fits = match dtype {
            Dtype::I64 => element == ElementType::Long,
            _ => matches!(element, ElementType::Float | ElementType::Double),
        };
        if !fits {
            return Err(ImportError::Network(format!(
                "a tensor has elements of type {element:?} instead of {dtype:?}"
            )));
        }
        let index = |value: i64| usize::try_from(value).unwrap_or(0);
        let dimensions = order
            .into_iter()
            .map(|dimension| {
                (
                    index(reference.shape[dimension]),
                    index(reference.strides[dimension]),
                )
            })
            .collect();
        Ok(Self {
            bytes,
            element,
            offset: index(reference.offset),
            dimensions,
            dtype,
            shape,
        })
    }

    /// Calls `push` with the bytes of every element in the new order. `TorchArchive::storage` has checked that they are
    /// all there.
    fn for_each(&self, width: usize, mut push: impl FnMut(&[u8])) {
        let count: usize = self.dimensions.iter().map(|&(length, _)| length).product();
        let mut position = vec![0; self.dimensions.len()];
        let mut index = self.offset;
        for _ in 0..count {
            push(&self.bytes[index * width..(index + 1) * width]);
            for (place, &(length, stride)) in position.iter_mut().zip(&self.dimensions).rev() {
                *place += 1;
                index += stride;
                if *place < length {
                    break;
                }
                index -= stride * length;
                *place = 0;
            }
        }
    }
}

impl View for ImportedTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut output = Vec::with_capacity(self.data_len());
        match self.element {
            ElementType::Double => self.for_each(8, |bytes| {
                let mut element = [0; 8];
                element.copy_from_slice(bytes);
                output.extend((f64::from_le_bytes(element) as f32).to_le_bytes());
            }),
            ElementType::Long => self.for_each(8, |bytes| output.extend(bytes)),
            ElementType::Float | ElementType::Other => self.for_each(4, |bytes| output.extend(bytes)),
        }
        Cow::Owned(output)
    }

    fn data_len(&self) -> usize {
        let width = if self.dtype == Dtype::I64 { 8 } else { 4 };
        self.shape.iter().product::<usize>() * width
    }
}
