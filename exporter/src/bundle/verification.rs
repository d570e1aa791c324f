//! Writes into a bundle how it was verified: one more entry of the ONNX file's metadata. The weights aren't touched.

use std::io;

use model::Verification;
use model::checkpoint::PendingFile;
use model::verification::METADATA_KEY;
use prost::Message as _;
use proto::onnx::StringStringEntryProto;

use super::{Bundle, MODEL_FILE};

/// Replaces the bundle's verification, so that a crash leaves either the old graph's file or the new one.
///
/// # Errors
/// Those of writing to the bundle's folder; the bundle is then as it was.
pub(crate) fn attach(bundle: &Bundle, verification: &Verification) -> io::Result<()> {
    let mut model = bundle.model().clone();
    model.metadata_props.retain(|entry| entry.key != METADATA_KEY);
    model.metadata_props.push(StringStringEntryProto {
        key: METADATA_KEY.into(),
        value: serde_json::to_string(verification)?,
    });
    PendingFile::replace(&bundle.folder().join(MODEL_FILE), &model.encode_to_vec())
}
