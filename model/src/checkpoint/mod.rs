//! The checkpoint format: `NAME.safetensors`, weights and BatchNorm buffers with a header that says what they are.
//!
//! The safetensors metadata holds one entry, [`METADATA_KEY`], whose JSON is the [`CheckpointHeader`], the format's
//! version and a digest. Reading memory-maps the file; writing streams one tensor at a time to a temporary file, syncs
//! it and renames it, so that a crash never leaves a torn checkpoint.

mod digest;
mod error;
mod header;
mod reader;
mod writer;

pub use error::CheckpointError;
pub use header::{CheckpointHeader, FORMAT_VERSION, METADATA_KEY};
pub use reader::{Checkpoint, TensorFile, TensorView, f32_values, open_tensors};
pub use safetensors::tensor::{Dtype, View};
pub use writer::{PendingFile, write, write_pending, write_tensors};
