//! Writes a lowered graph and its manifest as the files of a bundle.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::Path;

use model::manifest::{METADATA_KEY, Manifest};
use prost::Message as _;
use proto::onnx::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};

use super::external_data::StoredConstants;
use super::{DATA_FILE, MODEL_FILE};
use crate::error::ExportError;
use crate::lowering::{Graph, OPSET_VERSION};

/// The version of the file format that belongs to the operators' version.
const IR_VERSION: i64 = 8;

/// How much of the data file is written, and how long it will be, in bytes.
pub(crate) type DataProgress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// Writes both files into a folder, synced. Returns their bytes. The same graph and manifest give the same bytes.
///
/// # Errors
/// [`ExportError::Io`], [`ExportError::Interrupted`] where `progress` breaks, [`ExportError::Manifest`].
pub(crate) fn write(
    folder: &Path,
    graph: Graph<'_>,
    manifest: &Manifest,
    progress: &mut DataProgress<'_>,
) -> Result<u64, ExportError> {
    let manifest = serde_json::to_string(manifest).map_err(ExportError::Manifest)?;
    let constants = StoredConstants::plan(&graph.initializers);
    let total = constants.length;

    let path = folder.join(DATA_FILE);
    let written = File::create(&path).and_then(|file| {
        constants.write(&file, &mut |written| progress(written, total))?;
        file.sync_all()
    });
    match written {
        // The standard library retries where the operating system was interrupted: this was `progress`.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(ExportError::Interrupted),
        other => other.map_err(ExportError::io("write", &path))?,
    }

    let graph = GraphProto {
        node: graph.nodes,
        name: "ventral".into(),
        initializer: constants.tensors,
        input: graph.inputs,
        output: graph.outputs,
        ..GraphProto::default()
    };
    let bytes = file(graph, manifest).encode_to_vec();
    let path = folder.join(MODEL_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(ExportError::io("write", &path))?;
    Ok(total + bytes.len() as u64)
}

fn file(graph: GraphProto, manifest: String) -> ModelProto {
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
