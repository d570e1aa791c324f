//! Tensors of float32 values: from files, from the wire, compared.

use std::collections::BTreeMap;
use std::path::Path;

use model::checkpoint::{f32_values, open_tensors};

/// A dense float32 array.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The last dimension fastest.
    pub values: Vec<f32>,
}

impl Tensor {
    /// From little-endian bytes.
    pub fn from_bytes(shape: &[usize], bytes: &[u8]) -> Self {
        let values: Vec<f32> = f32_values(bytes).collect();
        assert_eq!(values.len(), shape.iter().product::<usize>());
        Self {
            shape: shape.to_vec(),
            values,
        }
    }

    /// As little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The largest absolute difference from what is expected, as a fraction of the largest magnitude that is expected.
    pub fn relative_error(&self, expected: &Self) -> f64 {
        assert_eq!(self.shape, expected.shape);
        let pairs = || {
            let both = self.values.iter().zip(&expected.values);
            both.map(|(&found, &expected)| (f64::from(found), f64::from(expected)))
        };
        assert!(pairs().all(|(found, expected)| found.is_finite() && expected.is_finite()));
        let largest = pairs().map(|(_, expected)| expected.abs()).fold(0.0, f64::max);
        let difference = pairs().map(|(found, expected)| (found - expected).abs());
        let difference = difference.fold(0.0, f64::max);
        if difference == 0.0 {
            0.0
        } else {
            difference / largest
        }
    }
}

/// The tensors of a safetensors file whose names begin with `prefix`, without it; those of other types are left out.
pub fn read(path: &Path, prefix: &str) -> BTreeMap<String, Tensor> {
    let file = open_tensors(path).unwrap();
    file.tensors()
        .filter(|(_, view)| view.dtype == model::checkpoint::Dtype::F32)
        .filter_map(|(name, view)| {
            let tensor = Tensor::from_bytes(view.shape, view.bytes);
            Some((name.strip_prefix(prefix)?.to_owned(), tensor))
        })
        .collect()
}
