//! Writes checkpoints so that a crash at any moment leaves either the old file or the new one.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use safetensors::tensor::View;

use super::digest::digest;
use super::error::CheckpointError;
use super::header::{CheckpointHeader, METADATA_KEY, StoredHeader};

/// Writes a checkpoint and returns its digest. Tensors are asked for their bytes one at a time.
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

/// As [`write`], but leaves the last step, the renaming, to the caller.
///
/// # Errors
/// As [`write`].
pub fn write_pending<V: View>(
    path: &Path,
    header: &CheckpointHeader,
    tensors: &[(String, V)],
) -> Result<(String, PendingFile), CheckpointError> {
    let stored = || {
        header.check()?;
        let digest = digest(header, tensors)?;
        let json = serde_json::to_string(&StoredHeader::new(header, digest.clone()));
        Ok((
            digest,
            json.map_err(|error| CheckpointError::Header(error.to_string()))?,
        ))
    };
    let (digest, json) = stored().map_err(|error: CheckpointError| error.at(path))?;
    let pending = write_tensors(path, (METADATA_KEY, json), tensors)?;
    Ok((digest, pending))
}

/// Writes any safetensors file with one metadata entry, to be published by renaming.
///
/// # Errors
/// [`CheckpointError::Io`] or [`CheckpointError::Format`]; nothing is left behind.
pub fn write_tensors<V: View>(
    path: &Path,
    (key, json): (&str, String),
    tensors: &[(String, V)],
) -> Result<PendingFile, CheckpointError> {
    let pending = PendingFile::for_path(path);
    let write = || {
        // A single entry: the order of several would not be reproducible.
        let metadata = HashMap::from([(key.to_owned(), json)]);
        let views = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), Borrowed(tensor)));
        safetensors::serialize_to_file(views, Some(metadata), &pending.temporary).map_err(
            |error| match error {
                safetensors::SafeTensorError::IoError(source) => CheckpointError::Io {
                    action: "can't write the file",
                    source,
                },
                other => CheckpointError::Format(other),
            },
        )?;
        let file = File::open(&pending.temporary).map_err(CheckpointError::io("can't open the file"))?;
        file.sync_all()
            .map_err(CheckpointError::io("can't sync the file"))
    };
    match write() {
        Ok(()) => Ok(pending),
        Err(error) => {
            // The error that led here says more than a failed clean-up would.
            let _ = fs::remove_file(&pending.temporary);
            Err(error.at(path))
        }
    }
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

/// Lets a borrowed tensor be serialised.
struct Borrowed<'a, V>(&'a V);

impl<V: View> View for Borrowed<'_, V> {
    fn dtype(&self) -> safetensors::Dtype {
        self.0.dtype()
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.0.data()
    }

    fn data_len(&self) -> usize {
        self.0.data_len()
    }
}
