//! Writes checkpoints so that a crash at any moment leaves either the old file or the new one.
//!
//! The library that reads safetensors files would write them too, but under a random temporary name: every killed run
//! would leave another one behind. Here it is always the same, and the digest is taken of the bytes on their way.

use std::fs::{self, File};
use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::View;
use serde_json::{Map, Value, json};

use super::digest::{Digest, storage_order};
use super::error::CheckpointError;
use super::header::{CheckpointHeader, METADATA_KEY, StoredHeader};

/// Stands for the digest until the tensors have been written.
const PLACEHOLDER: [u8; 64] = [b'0'; 64];

/// Writes a checkpoint and returns its digest. Tensors are asked for their bytes one at a time, each once.
///
/// # Errors
/// [`CheckpointError::Header`] where the header contradicts itself; [`CheckpointError::Io`] where the disk is full or
/// the folder isn't writable: the file at `path` is then what it was before.
pub fn write<V: View>(
    path: &Path,
    header: &CheckpointHeader,
    tensors: &[(String, V)],
) -> Result<String, CheckpointError> {
    let (digest, pending) = write_pending(path, header, tensors)?;
    pending.publish()?;
    Ok(digest)
}

/// As [`write`](fn@write), but leaves the last step, the renaming, to the caller.
///
/// # Errors
/// As [`write`](fn@write).
pub fn write_pending<V: View>(
    path: &Path,
    header: &CheckpointHeader,
    tensors: &[(String, V)],
) -> Result<(String, PendingFile), CheckpointError> {
    let prepare = || {
        header.check()?;
        let stored = StoredHeader::new(header, String::from_utf8_lossy(&PLACEHOLDER).into_owned());
        let json = serde_json::to_string(&stored);
        let json = json.map_err(|error| CheckpointError::Header(error.to_string()))?;
        Ok((Digest::new(header)?, json))
    };
    let (digest, json) = prepare().map_err(|error: CheckpointError| error.at(path))?;
    let (pending, digest) = write_file(path, (METADATA_KEY, &json), tensors, Some(digest))?;
    Ok((digest.unwrap_or_default(), pending))
}

/// Writes any safetensors file with one metadata entry, to be published by renaming.
///
/// # Errors
/// [`CheckpointError::Io`]; nothing is left behind.
pub fn write_tensors<V: View>(
    path: &Path,
    (key, json): (&str, String),
    tensors: &[(String, V)],
) -> Result<PendingFile, CheckpointError> {
    Ok(write_file(path, (key, &json), tensors, None)?.0)
}

fn write_file<V: View>(
    path: &Path,
    metadata: (&str, &str),
    tensors: &[(String, V)],
    digest: Option<Digest>,
) -> Result<(PendingFile, Option<String>), CheckpointError> {
    let pending = PendingFile::for_path(path);
    let create = || File::create(&pending.temporary).map_err(CheckpointError::io("can't create the file"));
    let written = create().and_then(|file| {
        stream(&file, metadata, tensors, digest).map_err(CheckpointError::io("can't write the file"))
    });
    match written {
        Ok(digest) => Ok((pending, digest)),
        Err(error) => {
            // The error that led here says more than a failed clean-up would.
            let _ = fs::remove_file(&pending.temporary);
            Err(error.at(path))
        }
    }
}

fn stream<V: View>(
    file: &File,
    metadata: (&str, &str),
    tensors: &[(String, V)],
    mut digest: Option<Digest>,
) -> std::io::Result<Option<String>> {
    let mut output = BufWriter::with_capacity(1 << 20, file);
    let order = storage_order(tensors);
    let header = header(metadata, &order);
    output.write_all(&(header.len() as u64).to_le_bytes())?;
    output.write_all(&header)?;
    for (name, tensor) in order {
        let bytes = tensor.data();
        output.write_all(&bytes)?;
        if let Some(digest) = &mut digest {
            digest.tensor(name, tensor.dtype(), tensor.shape(), &bytes);
        }
    }
    let digest = digest.map(Digest::finish);
    if let Some(digest) = &digest {
        // The metadata comes first in the header, and the digest in it before anything that a user has chosen.
        if let Some(offset) = header
            .windows(PLACEHOLDER.len())
            .position(|window| window == PLACEHOLDER)
        {
            output.seek(SeekFrom::Start(8 + offset as u64))?;
            output.write_all(digest.as_bytes())?;
        }
    }
    output.flush()?;
    drop(output);
    file.sync_all()?;
    Ok(digest)
}

/// The header of a safetensors file: JSON, padded with spaces so that the tensors begin at a multiple of 8.
fn header<V: View>((key, json): (&str, &str), order: &[&(String, V)]) -> Vec<u8> {
    let mut entries = Map::new();
    let mut offset = 0;
    for (name, tensor) in order {
        let end = offset + tensor.data_len();
        let dtype = tensor.dtype().to_string();
        entries.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": tensor.shape(), "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let metadata = json!({ key: json }).to_string();
    let entries = Value::Object(entries).to_string();
    let separator = if order.is_empty() { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{metadata}{separator}{}", &entries[1..]).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

/// A file that has been written and synced beside its final path. Its temporary name is always the same, so that
/// killed programs leave at most one behind, which the next one overwrites.
#[derive(Debug)]
#[must_use = "the file appears under its name only once it is published"]
pub struct PendingFile {
    temporary: PathBuf,
    path: PathBuf,
}

impl PendingFile {
    /// The pending file of `path`, whether or not it exists: `NAME.safetensors.partial`.
    pub fn for_path(path: &Path) -> Self {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".partial");
        Self {
            temporary: temporary.into(),
            path: path.into(),
        }
    }

    /// Writes a small file whole, so that a crash leaves either the old one or the new one.
    ///
    /// # Errors
    /// Those of the operating system; the file at `path` is then what it was before, and nothing is left behind.
    pub fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
        let pending = Self::for_path(path);
        let written = File::create(&pending.temporary).and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // The error says more than a failed clean-up would.
            let _ = fs::remove_file(&pending.temporary);
            return Err(error);
        }
        pending.publish().map_err(std::io::Error::other)
    }

    /// Where the file is until it is published.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its name, replacing what had it, and syncs the folder.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] where the renaming fails.
    pub fn publish(self) -> Result<(), CheckpointError> {
        let publish = || {
            fs::rename(&self.temporary, &self.path)
                .map_err(CheckpointError::io("can't rename the finished file"))?;
            let folder = match self.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let folder = File::open(folder).map_err(CheckpointError::io("can't open the folder"))?;
            folder
                .sync_all()
                .map_err(CheckpointError::io("can't sync the folder"))
        };
        publish().map_err(|error| error.at(&self.path))
    }
}
