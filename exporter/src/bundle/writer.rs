//! Writes a lowered graph and its manifest as the files of a bundle.

use std::fs::File;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use model::manifest::{METADATA_KEY, Manifest};
use prost::Message as _;
use proto::onnx::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};

use super::external_data::{StoredConstants, WriteError};
use super::{DATA_FILE, MODEL_FILE};
use crate::error::ExportError;
use crate::lowering::{Graph, OPSET_VERSION};

/// The version of the file format that belongs to the operators' version.
const IR_VERSION: i64 = 8;

/// How much of the data file is written, and how long it will be, in bytes.
pub(crate) type DataProgress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Writes both files into a folder, synced. Returns their bytes; the manifest gets the data file's digest. The same graph
/// and manifest give the same bytes.
///
/// # Errors
/// [`ExportError::Io`], [`ExportError::Weight`], [`ExportError::Interrupted`] where `progress` breaks,
/// [`ExportError::Manifest`].
pub(crate) fn write(
    folder: &Path,
    graph: Graph<'_>,
    manifest: &mut Manifest,
    progress: &mut DataProgress<'_>,
) -> Result<u64, ExportError> {
    let constants = StoredConstants::plan(&graph.initializers)?;
    let total = constants.length;

    let path = folder.join(DATA_FILE);
    let file = File::create(&path).map_err(ExportError::io("create", &path))?;
    let written = constants.write(&file, &mut |written| progress(written, total));
    manifest.data_digest = written.map_err(|error| match error {
        WriteError::Io(error) => ExportError::io("write", &path)(error),
        WriteError::Weight(error) => error,
        WriteError::Stopped => ExportError::Interrupted,
    })?;
    file.sync_all().map_err(ExportError::io("write", &path))?;
    drop(file);
    let manifest = serde_json::to_string(manifest).map_err(ExportError::Manifest)?;

    let graph = GraphProto {
        node: graph.nodes,
        name: "ventral".into(),
        initializer: constants.tensors,
        input: graph.inputs,
        output: graph.outputs,
        ..GraphProto::default()
    };
    let bytes = model(graph, manifest).encode_to_vec();
    let path = folder.join(MODEL_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(ExportError::io("write", &path))?;
    Ok(total + bytes.len() as u64)
}

fn model(graph: GraphProto, manifest: String) -> ModelProto {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "ventral".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET_VERSION,
        }],
        metadata_props: vec![StringStringEntryProto {
            key: METADATA_KEY.into(),
            value: manifest,
        }],
        ..ModelProto::default()
    }
}
