//! The digest that identifies a trained network: BLAKE3 over everything that changes its activations.

use safetensors::tensor::{Dtype, View};

use super::error::CheckpointError;
use super::header::CheckpointHeader;

/// Digest of header and tensors, in hexadecimal. Tensors are hashed in the order of their names; each field is preceded by its length, so
/// that no two different checkpoints feed the hash the same bytes.
pub(super) fn digest<V: View>(
    header: &CheckpointHeader,
    tensors: &[(String, V)],
) -> Result<String, CheckpointError> {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let json = |value: Result<Vec<u8>, serde_json::Error>| {
        value.map_err(|error| CheckpointError::Header(error.to_string()))
    };
    field(&json(serde_json::to_vec(&header.architecture))?);
    field(&json(serde_json::to_vec(&header.preprocessing))?);
    field(&json(serde_json::to_vec(&header.class_names))?);
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (name, tensor) in order {
        field(name.as_bytes());
        field(describe(tensor.dtype(), tensor.shape()).as_bytes());
        field(&tensor.data());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Element type and shape, as errors print them: `F32 [64, 3, 7, 7]`.
pub(super) fn describe(dtype: Dtype, shape: &[usize]) -> String {
    format!("{dtype:?} {shape:?}")
}
