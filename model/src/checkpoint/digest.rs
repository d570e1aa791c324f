//! The digest that identifies a trained network: BLAKE3 over everything that changes its activations.

use std::cmp::Reverse;

use safetensors::tensor::{Dtype, View};

use super::error::CheckpointError;
use super::header::CheckpointHeader;

/// Hashes a header, then tensors in the order in which they are stored. Each field is preceded by its length, so that
/// no two different checkpoints feed the hash the same bytes.
pub(super) struct Digest(blake3::Hasher);

impl Digest {
    pub(super) fn new(header: &CheckpointHeader) -> Result<Self, CheckpointError> {
        let mut digest = Self(blake3::Hasher::new());
        let json = |value: Result<Vec<u8>, serde_json::Error>| {
            value.map_err(|error| CheckpointError::Header(error.to_string()))
        };
        digest.field(&json(serde_json::to_vec(&header.architecture))?);
        digest.field(&json(serde_json::to_vec(&header.preprocessing))?);
        digest.field(&json(serde_json::to_vec(&header.class_names))?);
        Ok(digest)
    }

    pub(super) fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) {
        self.begin_tensor(name, dtype, shape, bytes.len());
        self.update(bytes);
    }

    /// Begins a tensor whose bytes follow in parts.
    pub(super) fn begin_tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: usize) {
        self.field(name.as_bytes());
        self.field(describe(dtype, shape).as_bytes());
        self.length(bytes);
    }

    /// A part of a tensor's bytes.
    pub(super) fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// In hexadecimal: 64 characters.
    pub(super) fn finish(self) -> String {
        self.0.finalize().to_hex().to_string()
    }

    fn field(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.update(bytes);
    }

    fn length(&mut self, bytes: usize) {
        self.0.update(&(bytes as u64).to_le_bytes());
    }
}

/// The order in which tensors are stored and hashed: wide elements first, so that all are aligned, then by name.
pub(super) fn storage_order<V: View>(tensors: &[(String, V)]) -> Vec<&(String, V)> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(name, tensor)| (Reverse(tensor.dtype().bitsize()), name.as_str()));
    order
}

/// Element type and shape, as errors print them: `F32 [64, 3, 7, 7]`.
pub(super) fn describe(dtype: Dtype, shape: &[usize]) -> String {
    format!("{dtype:?} {shape:?}")
}
