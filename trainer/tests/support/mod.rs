//! Golden files, and the authors' layout of weights.
#![allow(
    dead_code,
    clippy::allow_attributes_without_reason,
    reason = "every test uses some of it"
)]

pub mod layers;

use std::path::{Path, PathBuf};

use model::Convolution;
use model::checkpoint::{Dtype, TensorFile, open_tensors};
use tch::{Kind, Tensor};

/// A golden file's path.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(name)
}

/// A golden file's text.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

/// An open safetensors file.
pub struct Golden(TensorFile);

impl Golden {
    pub fn open(name: &str) -> Self {
        Self(open_tensors(&path(name)).unwrap())
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        let view = self.0.tensor(name).unwrap();
        let kind = match view.dtype {
            Dtype::I64 => Kind::Int64,
            Dtype::F64 => Kind::Double,
            _ => Kind::Float,
        };
        let shape: Vec<i64> = view.shape.iter().map(|&length| length as i64).collect();
        Tensor::from_data_size(view.bytes, &shape, kind)
    }

    /// Names that begin with `prefix`, without it.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        self.0
            .tensors()
            .filter_map(|(name, _)| Some(name.strip_prefix(prefix)?.to_owned()))
            .collect()
    }
}

/// `[Cin, Cout, H, W, k, k]` to `[H, W, K, Cout]`.
pub fn from_authors(weights: &Tensor) -> Tensor {
    let size = weights.size();
    let permuted = weights.permute([2, 3, 4, 5, 0, 1]).contiguous();
    permuted.view([size[2], size[3], size[4] * size[5] * size[0], size[1]])
}

/// `[H, W, K, Cout]` to `[Cin, Cout, H, W, k, k]`.
pub fn to_authors(weights: &Tensor, geometry: &Convolution) -> Tensor {
    let size = weights.size();
    let (k, channels) = (geometry.kernel_size as i64, geometry.in_channels as i64);
    weights
        .reshape([size[0], size[1], k, k, channels, size[3]])
        .permute([4, 5, 0, 1, 2, 3])
        .contiguous()
}

/// Largest absolute difference as a fraction of the expected tensor's largest magnitude.
pub fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let largest = expected.abs().max().double_value(&[]);
    let difference = (found - expected).abs().max().double_value(&[]);
    if difference == 0.0 {
        0.0
    } else {
        difference / largest
    }
}
