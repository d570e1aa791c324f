//! Recorded activations: what the trainer's network computed for some images, for exporters to be checked against.
//!
//! A safetensors file with `input` (`[N, C, H, W]`, already preprocessed) and one tensor per layer under the layer's
//! name (`[N, C, H, W]`, `fc` `[N, classes]`), all float32; its metadata names the checkpoint by digest.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointError, Dtype, TensorFile, TensorView, View, open_tensors, write_tensors};

/// The name of the stimuli in a recording.
pub const INPUT: &str = "input";

/// The entry of the safetensors metadata.
const METADATA_KEY: &str = "ventral-recording";
const FORMAT_VERSION: u32 = 1;

/// An open recording.
#[derive(Debug)]
pub struct Recording {
    metadata: Metadata,
    tensors: TensorFile,
}

#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    format_version: u32,
    checkpoint_digest: String,
}

impl Recording {
    /// Opens a recording and checks that its tensors are float32 and of one batch.
    ///
    /// # Errors
    /// [`CheckpointError`] with the file's name.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let tensors = open_tensors(path)?;
        let at = |source: CheckpointError| CheckpointError::At {
            path: path.into(),
            source: Box::new(source),
        };
        let metadata = parse(&tensors).map_err(at)?;
        let input = tensors.tensor(INPUT)?;
        for (name, view) in tensors.tensors() {
            if view.dtype != Dtype::F32 || view.shape.first() != input.shape.first() {
                let found = format!("{:?} {:?}", view.dtype, view.shape);
                let images = input.shape.first().copied().unwrap_or(0);
                let expected = format!("F32 with {images} images");
                return Err(at(CheckpointError::WrongTensor {
                    name: name.into(),
                    found,
                    expected,
                }));
            }
        }
        Ok(Self { metadata, tensors })
    }

    /// Digest of the checkpoint that computed the activations.
    pub fn checkpoint_digest(&self) -> &str {
        &self.metadata.checkpoint_digest
    }

    /// The stimuli, `[N, C, H, W]`.
    ///
    /// # Errors
    /// Never, for an open recording: `open` has found the tensor.
    pub fn input(&self) -> Result<TensorView<'_>, CheckpointError> {
        self.tensors.tensor(INPUT)
    }

    /// The recorded layers with their activations, in the order of their names.
    pub fn layers(&self) -> BTreeMap<&str, TensorView<'_>> {
        self.tensors
            .tensors()
            .filter(|(name, _)| *name != INPUT)
            .collect()
    }

    /// Writes a recording; `tensors` are `input` and the layers.
    ///
    /// # Errors
    /// [`CheckpointError`] with the file's name; nothing is left behind.
    pub fn write<V: View>(
        path: &Path,
        checkpoint_digest: &str,
        tensors: &[(String, V)],
    ) -> Result<(), CheckpointError> {
        let checkpoint_digest = checkpoint_digest.to_owned();
        let metadata = Metadata {
            format_version: FORMAT_VERSION,
            checkpoint_digest,
        };
        let json =
            serde_json::to_string(&metadata).map_err(|error| CheckpointError::Header(error.to_string()))?;
        write_tensors(path, (METADATA_KEY, json), tensors)?.publish()
    }
}

fn parse(tensors: &TensorFile) -> Result<Metadata, CheckpointError> {
    let json = tensors.metadata().get(METADATA_KEY).ok_or_else(|| {
        CheckpointError::Header("this is no recording of activations; `trainer record` writes one".into())
    })?;
    let metadata: Metadata =
        serde_json::from_str(json).map_err(|error| CheckpointError::Header(error.to_string()))?;
    if metadata.format_version != FORMAT_VERSION {
        return Err(CheckpointError::Version {
            found: metadata.format_version,
        });
    }
    Ok(metadata)
}
