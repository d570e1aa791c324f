//! The zip archive that `torch.save` writes: `NAME/data.pkl`, `NAME/data/0`, `NAME/data/1`, … stored uncompressed.

use std::io::{self, Cursor, Read};
use std::path::Path;

use model::MappedFile;
use zip::{CompressionMethod, ZipArchive};

use super::ImportError;
use super::pickle::{ElementType, Pickle, TensorReference};

/// A pickle of a checkpoint at most; that of a ResNet-18 with its optimiser has 40 kB.
const MAX_PICKLE_BYTES: u64 = 256 << 20;

/// An open PyTorch checkpoint, memory-mapped.
pub struct TorchArchive {
    file: MappedFile,
    prefix: String,
    pickle: Pickle,
}

impl std::fmt::Debug for TorchArchive {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TorchArchive")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Where an entry's bytes are in the file.
type Range = std::ops::Range<usize>;

impl TorchArchive {
    /// Opens an archive, checks the checksum of every entry and reads its pickle.
    ///
    /// # Errors
    /// [`ImportError`] where the file is no PyTorch checkpoint, or truncated or damaged.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let file = MappedFile::open(path)?;
        let mut zip = ZipArchive::new(Cursor::new(&*file))?;
        let prefix = zip
            .file_names()
            .flatten()
            .find_map(|name| Some(name.strip_suffix("data.pkl")?.to_owned()))
            .ok_or_else(|| ImportError::Layout("its archive has no data.pkl".into()))?;
        check_byte_order(&mut zip, &prefix)?;
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index)?;
            let name = entry.name()?.into_owned();
            // Reading to the end compares the checksum.
            io::copy(&mut entry, &mut io::sink())
                .map_err(|error| ImportError::Layout(format!("its entry {name} is damaged ({error})")))?;
            // What has been compared needn't stay in memory.
            file.release(&file);
        }
        let pickle = read_limited(&mut zip, &format!("{prefix}data.pkl"), MAX_PICKLE_BYTES)?;
        let pickle = Pickle::read(&pickle)?;
        drop(zip);
        Ok(Self { file, prefix, pickle })
    }

    /// The checkpoint's values.
    pub fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// The file, mapped.
    pub(super) fn file(&self) -> &MappedFile {
        &self.file
    }

    /// The elements of a tensor's storage, checked to hold all that the tensor refers to.
    ///
    /// # Errors
    /// [`ImportError::Layout`] where the storage is missing, compressed or too short.
    pub fn storage(&self, tensor: &TensorReference) -> Result<&[u8], ImportError> {
        let width = match tensor.storage.element {
            ElementType::Half | ElementType::BFloat16 => 2,
            ElementType::Float => 4,
            ElementType::Double | ElementType::Long => 8,
            ElementType::Other => {
                let message = "a tensor has elements other than real numbers and int64".into();
                return Err(ImportError::Network(message));
            }
        };
        let range = self.entry(&format!("{}data/{}", self.prefix, tensor.storage.key))?;
        let bytes = &self.file[range];
        let empty = tensor.shape.contains(&0);
        let last = tensor
            .shape
            .iter()
            .zip(&tensor.strides)
            .try_fold(tensor.offset, |last, (&length, &stride)| {
                last.checked_add((length - 1).max(0).checked_mul(stride)?)
            });
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(width));
        match end {
            Some(end) if empty || usize::try_from(end).is_ok_and(|end| end <= bytes.len()) => Ok(bytes),
            _ => {
                let key = &tensor.storage.key;
                let message = format!(
                    "a tensor of shape {:?} reaches past its storage {key}",
                    tensor.shape
                );
                Err(ImportError::Layout(message))
            }
        }
    }

    fn entry(&self, name: &str) -> Result<Range, ImportError> {
        let mut zip = ZipArchive::new(Cursor::new(&*self.file))?;
        let missing = |_| ImportError::Layout(format!("its archive has no entry {name}"));
        let entry = zip.by_name(name).map_err(missing)?;
        if entry.compression() != CompressionMethod::Stored {
            let message = format!("its entry {name} is compressed; save it again with `torch.save`");
            return Err(ImportError::Layout(message));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let end = start
            .zip(usize::try_from(entry.size()).ok())
            .and_then(|(start, size)| start.checked_add(size));
        match (start, end) {
            (Some(start), Some(end)) if end <= self.file.len() => Ok(start..end),
            _ => Err(ImportError::Layout(format!(
                "its entry {name} reaches past the end of the file"
            ))),
        }
    }
}

fn check_byte_order(zip: &mut ZipArchive<Cursor<&[u8]>>, prefix: &str) -> Result<(), ImportError> {
    let name = format!("{prefix}byteorder");
    if zip.file_names().flatten().any(|entry| entry == name) && read_limited(zip, &name, 64)? != b"little" {
        return Err(ImportError::Layout(
            "it was written on a big-endian machine".into(),
        ));
    }
    Ok(())
}

fn read_limited(zip: &mut ZipArchive<Cursor<&[u8]>>, name: &str, limit: u64) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    zip.by_name(name)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(ImportError::Layout(format!(
            "its entry {name} has more than {limit} bytes"
        )));
    }
    Ok(bytes)
}
