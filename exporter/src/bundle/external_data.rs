//! The data file: where each tensor goes, and the writing of it, one chunk at a time.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::ControlFlow;

use proto::onnx::tensor_proto::DataLocation;
use proto::onnx::{StringStringEntryProto, TensorProto};

use super::{ALIGNMENT, DATA_FILE, EXTERNAL_BYTES};
use crate::lowering::Initializer;
use crate::weights::TensorData;

/// Constants as they are stored: small ones in the graph's file, the others in the data file.
pub(super) struct StoredConstants<'a> {
    /// For the graph, in the order of the constants.
    pub(super) tensors: Vec<TensorProto>,
    /// Of the data file, in bytes.
    pub(super) length: u64,
    external: Vec<(u64, &'a TensorData<'a>)>,
}

impl<'a> StoredConstants<'a> {
    /// Gives every constant its place.
    pub(super) fn plan(initializers: &'a [Initializer<'a>]) -> Self {
        let mut stored = Self {
            tensors: Vec::with_capacity(initializers.len()),
            length: 0,
            external: Vec::new(),
        };
        for initializer in initializers {
            let tensor = stored.place(initializer);
            stored.tensors.push(tensor);
        }
        stored
    }

    fn place(&mut self, initializer: &'a Initializer<'a>) -> TensorProto {
        let data = &initializer.data;
        let mut tensor = TensorProto {
            dims: initializer.shape.iter().map(|&length| length as i64).collect(),
            data_type: data.data_type().into(),
            name: initializer.name.clone(),
            ..TensorProto::default()
        };
        // Readers look at integers to learn shapes before they load any data.
        let integers = matches!(data, TensorData::Integers(_));
        if integers || data.byte_length() < EXTERNAL_BYTES {
            tensor.raw_data = data.bytes();
        } else {
            let length = data.byte_length() as u64;
            let offset = self.length.next_multiple_of(ALIGNMENT);
            tensor.data_location = DataLocation::External.into();
            tensor.external_data = vec![
                entry("location", &DATA_FILE),
                entry("offset", &offset),
                entry("length", &length),
            ];
            self.external.push((offset, data));
            self.length = offset + length;
        }
        tensor
    }

    /// Writes the data file. `progress` hears how many bytes are written, and can stop the writing, which is then an
    /// error of the kind [`io::ErrorKind::Interrupted`].
    pub(super) fn write(
        &self,
        mut file: &File,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut position = 0;
        for (offset, data) in &self.external {
            let padding = [0; ALIGNMENT as usize];
            file.write_all(&padding[..(offset - position) as usize])?;
            position = *offset;
            data.visit(|chunk| -> io::Result<()> {
                file.write_all(chunk)?;
                position += chunk.len() as u64;
                match progress(position) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(io::ErrorKind::Interrupted.into()),
                }
            })?;
        }
        Ok(())
    }
}

fn entry(key: &str, value: &dyn ToString) -> StringStringEntryProto {
    StringStringEntryProto {
        key: key.into(),
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(name: &str, count: usize) -> Initializer<'static> {
        Initializer {
            name: name.into(),
            shape: vec![count],
            data: TensorData::Floats((0..count).map(|index| index as f32).collect()),
        }
    }

    #[test]
    fn large_tensors_begin_at_pages_and_small_ones_stay_in_the_graph() {
        let constants = [
            constant("a", 1500),
            constant("b", 3),
            constant("c", 1024),
            constant("d", 300),
        ];
        let stored = StoredConstants::plan(&constants);
        let places: Vec<_> = stored
            .tensors
            .iter()
            .map(|tensor| {
                let value = |entry: &StringStringEntryProto| entry.value.clone();
                tensor.external_data.iter().map(value).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(places[0], [DATA_FILE, "0", "6000"]);
        assert_eq!(places[1], Vec::<String>::new());
        assert_eq!(places[2], [DATA_FILE, "8192", "4096"]);
        assert_eq!(places[3], [DATA_FILE, "12288", "1200"]);
        assert_eq!(stored.tensors[1].raw_data.len(), 12);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATA_FILE);
        let mut last = 0;
        let file = File::create(&path).unwrap();
        stored
            .write(&file, &mut |written| {
                last = written;
                ControlFlow::Continue(())
            })
            .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len() as u64, last), (stored.length, stored.length));
        assert_eq!(bytes[8192 + 4..8192 + 8], 1.0_f32.to_le_bytes());
        assert!(bytes[6000..8192].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn writing_can_be_stopped() {
        let constants = [constant("a", 1500), constant("b", 1500)];
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join(DATA_FILE)).unwrap();
        let stored = StoredConstants::plan(&constants);
        let error = stored.write(&file, &mut |_| ControlFlow::Break(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        assert_eq!(
            file.metadata().unwrap().len(),
            6000,
            "the second tensor isn't written"
        );
    }
}
