//! Computes bundles of reduced precision in single precision: tract knows no bfloat16, and half precision is the
//! business of execution providers, each of which rounds in its own way. What is proved is the graph and the rounded
//! weights as they are stored; they are widened while they are read, which loses nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use half::{bf16, f16};
use proto::onnx::tensor_proto::{DataLocation, DataType};
use proto::onnx::{GraphProto, TensorProto};
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::{TractError, TractResult};

/// Gives tract the external data of a bundle, reduced numbers as single precision ones.
#[derive(Clone, Debug, Default)]
pub(super) struct WideningReader {
    /// The type of the reduced constants, by their offsets in the data file.
    reduced: HashMap<usize, Reduced>,
}

#[derive(Clone, Copy, Debug)]
enum Reduced {
    Half,
    Brain,
}

impl Reduced {
    fn of(data_type: i32) -> Option<Self> {
        match DataType::try_from(data_type) {
            Ok(DataType::Float16) => Some(Self::Half),
            Ok(DataType::Bfloat16) => Some(Self::Brain),
            _ => None,
        }
    }

    fn widen(self, bytes: &[u8]) -> Vec<u8> {
        let (elements, _) = bytes.as_chunks::<2>();
        let mut wide = vec![0; elements.len() * size_of::<f32>()];
        for (&element, wide) in elements.iter().zip(wide.as_chunks_mut::<4>().0) {
            let value = match self {
                Self::Half => f16::from_le_bytes(element).to_f32(),
                Self::Brain => bf16::from_le_bytes(element).to_f32(),
            };
            *wide = value.to_le_bytes();
        }
        wide
    }
}

/// Changes a graph to single precision; external data stays where it is, for the reader that is returned.
pub(super) fn widen(graph: &mut GraphProto) -> WideningReader {
    let mut reader = WideningReader::default();
    for tensor in &mut graph.initializer {
        let Some(reduced) = Reduced::of(tensor.data_type) else {
            continue;
        };
        tensor.data_type = DataType::Float.into();
        if tensor.data_location == i32::from(DataLocation::External) {
            if let Some(offset) = offset(tensor) {
                reader.reduced.insert(offset, reduced);
            }
        } else {
            tensor.raw_data = reduced.widen(&tensor.raw_data);
        }
    }
    let casts = graph.node.iter_mut().filter(|node| node.op_type == "Cast");
    for attribute in casts.flat_map(|node| &mut node.attribute) {
        if attribute.name == "to" && i32::try_from(attribute.i).ok().and_then(Reduced::of).is_some() {
            attribute.i = i64::from(i32::from(DataType::Float));
        }
    }
    reader
}

/// An open bundle's constants have been checked: each has a place.
fn offset(tensor: &TensorProto) -> Option<usize> {
    let entry = tensor.external_data.iter().find(|entry| entry.key == "offset")?;
    entry.value.parse().ok()
}

impl ModelDataResolver for WideningReader {
    fn read_bytes_from_path(
        &self,
        buffer: &mut Vec<u8>,
        path: &Path,
        offset: usize,
        length: Option<usize>,
    ) -> TractResult<()> {
        let length = length.ok_or_else(|| TractError::msg("external data without a length"))?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset as u64))?;
        let start = buffer.len();
        buffer.resize(start + length, 0);
        file.read_exact(&mut buffer[start..])?;
        if let Some(reduced) = self.reduced.get(&offset) {
            let wide = reduced.widen(&buffer[start..]);
            buffer.truncate(start);
            buffer.extend_from_slice(&wide);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::onnx::{AttributeProto, NodeProto, StringStringEntryProto};

    use super::*;

    #[test]
    fn reduced_numbers_are_widened_where_they_are() {
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        let external = TensorProto {
            data_type: DataType::Bfloat16.into(),
            data_location: DataLocation::External.into(),
            external_data: vec![
                entry("location", "data"),
                entry("offset", "4"),
                entry("length", "4"),
            ],
            ..TensorProto::default()
        };
        let inline = TensorProto {
            data_type: DataType::Float16.into(),
            raw_data: f16::from_f32(-0.25).to_le_bytes().to_vec(),
            ..TensorProto::default()
        };
        let cast = NodeProto {
            op_type: "Cast".into(),
            attribute: vec![AttributeProto {
                name: "to".into(),
                i: i64::from(i32::from(DataType::Float16)),
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        };
        let mut graph = GraphProto {
            initializer: vec![external, inline],
            node: vec![cast],
            ..GraphProto::default()
        };
        let reader = widen(&mut graph);
        let float = i32::from(DataType::Float);
        assert!(graph.initializer.iter().all(|tensor| tensor.data_type == float));
        assert_eq!(graph.initializer[1].raw_data, (-0.25_f32).to_le_bytes());
        assert_eq!(graph.node[0].attribute[0].i, i64::from(float));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut bytes = vec![9; 4];
        for value in [1.5_f32, -3.0] {
            bytes.extend(bf16::from_f32(value).to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let mut buffer = Vec::new();
        reader
            .read_bytes_from_path(&mut buffer, &path, 4, Some(4))
            .unwrap();
        assert_eq!(buffer, [1.5_f32, -3.0].map(f32::to_le_bytes).concat());
        let mut plain = Vec::new();
        reader
            .read_bytes_from_path(&mut plain, &path, 0, Some(4))
            .unwrap();
        assert_eq!(plain, [9; 4]);
        assert!(
            reader
                .read_bytes_from_path(&mut Vec::new(), &path, 4, Some(8))
                .is_err()
        );
    }
}
