//! The files of a bundle's weights, held so that sessions can still be made when the bundle's folder was replaced or
//! removed while requests wait for one.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::sync::Arc;

use model::MappedFile;
use proto::onnx::{ModelProto, StringStringEntryProto, TensorProto};

use crate::external_data::DataFile;

/// The name under which [`WeightFiles::detach`] hands weights over.
pub const DETACHED: &str = "detached";

/// Keys of a tensor's external data.
const LOCATION: &str = "location";
const OFFSET: &str = "offset";
const LENGTH: &str = "length";

/// The files of a bundle's weights, mapped.
#[derive(Debug, Default)]
pub struct WeightFiles {
    files: HashMap<String, WeightFile>,
}

#[derive(Debug)]
struct WeightFile {
    map: MappedFile,
    /// Device and inode, where there are such.
    number: (u64, u64),
}

impl WeightFiles {
    /// Maps files of a folder. Nothing is read.
    ///
    /// # Errors
    /// Those of opening and mapping a file.
    pub fn open(folder: &Path, files: &[DataFile]) -> io::Result<Self> {
        let open = |file: &DataFile| {
            let path = folder.join(&file.name);
            let number = number(&path.metadata()?);
            let map = MappedFile::open(&path)?;
            Ok((file.name.clone(), WeightFile { map, number }))
        };
        let files: io::Result<_> = files.iter().map(open).collect();
        Ok(Self { files: files? })
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.map.len() as u64).sum()
    }

    /// Reads all of them into memory, where the system can.
    pub fn load(&self) {
        for file in self.files.values() {
            file.map.load(&file.map);
        }
    }

    /// What the file system numbers them with.
    pub fn numbers(&self) -> impl Iterator<Item = (u64, u64)> {
        self.files.values().map(|file| file.number)
    }

    /// Whether a folder has these files, and not others of the same names.
    pub fn are_in(&self, folder: &Path) -> bool {
        self.files.iter().all(|(name, file)| {
            let metadata = folder.join(name).metadata();
            metadata.is_ok_and(|metadata| number(&metadata) == file.number)
        })
    }

    /// Copies the weights that a graph has in these files into one piece of memory, and makes the graph refer to that as
    /// to a file named [`DETACHED`].
    pub fn detach(&self, graph: &mut ModelProto) -> Arc<[u8]> {
        let mut copied = Vec::new();
        let tensors = graph.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
        for tensor in tensors.filter(|tensor| !tensor.external_data.is_empty()) {
            if let Some(part) = self.part(tensor) {
                let start = copied.len().next_multiple_of(ALIGNMENT);
                copied.resize(start, 0);
                copied.extend_from_slice(part);
                let entry = |(key, value): (&str, String)| StringStringEntryProto {
                    key: key.into(),
                    value,
                };
                let entries = [
                    (LOCATION, DETACHED.into()),
                    (OFFSET, start.to_string()),
                    (LENGTH, part.len().to_string()),
                ];
                tensor.external_data = entries.map(entry).to_vec();
            }
        }
        copied.into()
    }

    /// A tensor's bytes, if they are in these files.
    fn part(&self, tensor: &TensorProto) -> Option<&[u8]> {
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key == key);
            entry.map(|entry| entry.value.as_str())
        };
        let number = |key: &str| entry(key).map(|value| value.parse::<usize>().ok());
        let bytes = &self.files.get(entry(LOCATION)?)?.map;
        let offset = number(OFFSET).unwrap_or(Some(0))?;
        match number(LENGTH) {
            Some(length) => bytes.get(offset..offset.checked_add(length?)?),
            None => {
                let length = usize::try_from(crate::external_data::byte_length(tensor).ok()?).ok()?;
                bytes.get(offset..offset.checked_add(length)?)
            }
        }
    }
}

/// Enough for any element type, and a cache line.
const ALIGNMENT: usize = 64;

/// Device and inode of a file, where there are such.
pub fn number(metadata: &Metadata) -> (u64, u64) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (metadata.dev(), metadata.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        (0, 0)
    }
}
