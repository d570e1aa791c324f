//! What a request may choose: how its stimuli are preprocessed, what is made of the activations, how urgent it is.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a request may choose. The defaults are the model's own preprocessing and whole activations as float32, soon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How images become the network's input.
    pub preprocessing: PreprocessingChoice,
    /// What is made of a layer's spatial dimensions.
    pub pooling: Pooling,
    /// By layer: positions in one image's activations as a flat row, `[C, H, W]` with W fastest. In any order, repeated
    /// ones are given repeatedly.
    pub units: BTreeMap<String, Vec<u32>>,
    /// Names of projections, at most one a layer.
    pub projections: Vec<String>,
    /// Type of the values in the answer.
    pub data_type: ElementType,
    /// How the values in the answer are packed.
    pub compression: Compression,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether its images are never in a batch with those of others, so that the results are bit for bit those of ONNX
    /// Runtime on these stimuli alone.
    pub exclusive: bool,
    /// When the caller stops waiting, if it said so.
    #[serde(skip)]
    pub deadline: Option<Instant>,
}

/// How images become the network's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreprocessingChoice {
    /// As in the model's training. Tensors of uint8 are normalised, tensors of float32 are the input itself.
    #[default]
    Model,
    /// The whole image is resized to the network's input without regard to its proportions, then normalised: what
    /// Brain-Score's `load_preprocess_images` does.
    Stretch,
    /// The stimuli are tensors that are the network's input itself.
    None,
}

/// What is made of a layer's spatial dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// They stay.
    #[default]
    None,
    /// The mean of every channel, added up in double precision.
    SpatialMean,
    /// The greatest value of every channel.
    SpatialMax,
}

/// Type of the values in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// IEEE single precision: what the network computes.
    #[default]
    Float32,
    /// IEEE half precision, rounded to the nearest; values past 65504 become infinite.
    Float16,
    /// The upper half of a float32, rounded to the nearest.
    Bfloat16,
}

/// How the values in an answer are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One zstd frame a tensor.
    Zstd,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Someone waits: computed before everything that is bulk.
    #[default]
    Interactive,
    /// Computed when nothing else waits, and now and then even so.
    Bulk,
}

impl ElementType {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }
}
