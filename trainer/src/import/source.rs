//! A file of tensors with PyTorch's names: what `torch.save` has written, or a safetensors file. The file's first bytes
//! tell which it is, whatever its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use model::checkpoint::{Dtype, METADATA_KEY, TensorFile, open_tensors};

use super::ImportError;
use super::archive::TorchArchive;
use super::infer::Shapes;
use super::pickle::{ElementType, Pickle, TensorReference, Value};
use super::tensor::{SourceFile, SourceTensor};

/// What `torch.save` wrote before PyTorch 1.6 begins with this number, pickled.
const OLD_MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// An open file of tensors.
pub(super) enum Source {
    /// `torch.save`'s.
    Torch {
        archive: TorchArchive,
        tensors: BTreeMap<String, TensorReference>,
    },
    /// safetensors.
    Safetensors {
        file: TensorFile,
        /// The names in the file by the names of the network's tensors.
        names: BTreeMap<String, String>,
    },
}

impl Source {
    /// Opens a file and finds its tensors.
    ///
    /// # Errors
    /// [`ImportError`] where it is of neither kind, or damaged, or holds no tensors by name.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let mut start = Vec::new();
        File::open(path)?.take(64).read_to_end(&mut start)?;
        if is_safetensors(&start) {
            let file = open_tensors(path).map_err(inner)?;
            if file.metadata().contains_key(METADATA_KEY) {
                let message = "it is a checkpoint of Ventral's already; `trainer convert` changes those";
                return Err(ImportError::Layout(message.into()));
            }
            let names = file.tensors().map(|(name, _)| (bare(name).into(), name.into()));
            let names = names.collect();
            return Ok(Self::Safetensors { file, names });
        }
        if start.windows(OLD_MAGIC.len()).any(|window| window == OLD_MAGIC) {
            let message =
                "it is in the format from before PyTorch 1.6; load it with `torch.load` and save it again";
            return Err(ImportError::Layout(message.into()));
        }
        let archive = TorchArchive::open(path)?;
        let tensors = state_dict(archive.pickle())?;
        Ok(Self::Torch { archive, tensors })
    }

    /// The shapes of all tensors by name.
    pub(super) fn shapes(&self) -> Shapes {
        match self {
            Self::Torch { tensors, .. } => tensors
                .iter()
                .map(|(name, tensor)| {
                    let shape = tensor.shape.iter().map(|&length| index(length)).collect();
                    (name.clone(), shape)
                })
                .collect(),
            Self::Safetensors { file, names } => names
                .iter()
                .filter_map(|(name, stored)| Some((name.clone(), file.tensor(stored).ok()?.shape.to_vec())))
                .collect(),
        }
    }

    /// A tensor that [`Source::shapes`] has named; `None` for another.
    ///
    /// # Errors
    /// [`ImportError`] where its elements aren't all there.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<SourceTensor<'_>>, ImportError> {
        match self {
            Self::Torch { archive, tensors } => {
                let Some(reference) = tensors.get(name) else {
                    return Ok(None);
                };
                Ok(Some(SourceTensor {
                    element: reference.storage.element,
                    bytes: archive.storage(reference)?,
                    offset: index(reference.offset),
                    shape: reference.shape.iter().map(|&length| index(length)).collect(),
                    strides: reference.strides.iter().map(|&stride| index(stride)).collect(),
                    file: Some(SourceFile::Torch(archive.file())),
                }))
            }
            Self::Safetensors { file, names } => {
                let Some(stored) = names.get(name) else {
                    return Ok(None);
                };
                let view = file.tensor(stored)?;
                let element = match view.dtype {
                    Dtype::F32 => ElementType::Float,
                    Dtype::F64 => ElementType::Double,
                    Dtype::F16 => ElementType::Half,
                    Dtype::BF16 => ElementType::BFloat16,
                    Dtype::I64 => ElementType::Long,
                    _ => ElementType::Other,
                };
                Ok(Some(SourceTensor {
                    file: Some(SourceFile::Safetensors(file)),
                    ..SourceTensor::row_major(element, view.bytes, view.shape)
                }))
            }
        }
    }

    /// The format, for a checkpoint's provenance.
    pub(super) fn format(&self) -> &'static str {
        match self {
            Self::Torch { .. } => "torch.save",
            Self::Safetensors { .. } => "safetensors",
        }
    }

    /// Epochs that the network was trained for, where the file says so.
    pub(super) fn epoch(&self) -> Option<i64> {
        let Self::Torch { archive, .. } = self else {
            return None;
        };
        match archive.pickle().entry(archive.pickle().root(), "epoch") {
            Some(Value::Integer(epoch)) => Some(*epoch),
            _ => None,
        }
    }
}

/// Eight bytes with the length of the JSON that follows.
fn is_safetensors(start: &[u8]) -> bool {
    start.get(8) == Some(&b'{') && start[7] == 0 && start[6] == 0
}

/// The archive's tensors by name.
fn state_dict(pickle: &Pickle) -> Result<BTreeMap<String, TensorReference>, ImportError> {
    let root = pickle.root();
    let nested = ["model_state_dict", "state_dict"]
        .iter()
        .find_map(|key| pickle.entry(root, key));
    let Value::Dictionary(entries) = nested.unwrap_or(root) else {
        return Err(ImportError::Network(
            "the checkpoint is no dictionary of tensors".into(),
        ));
    };
    let mut tensors = BTreeMap::new();
    for &(name, value) in entries {
        if let (Value::Text(name), Value::Tensor(tensor)) = (pickle.value(name), pickle.value(value)) {
            tensors.insert(bare(name).to_owned(), tensor.clone());
        }
    }
    if tensors.is_empty() {
        let message = "the checkpoint holds no tensors, neither under `model_state_dict` nor by themselves";
        return Err(ImportError::Network(message.into()));
    }
    Ok(tensors)
}

/// A tensor's name without what data-parallel training puts before it.
fn bare(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

/// The file's name is added by the caller.
fn inner(error: model::CheckpointError) -> ImportError {
    match error {
        model::CheckpointError::At { source, .. } => ImportError::Checkpoint(*source),
        other => ImportError::Checkpoint(other),
    }
}

/// A number that the pickle reader has found not to be negative.
fn index(value: i64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
