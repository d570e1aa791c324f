//! The file of the weights: its length, and whether it is the one that was exported.

use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::bundle::{Bundle, DATA_FILE, data_digest};
use crate::error::BundleError;

/// Whether a bundle's data file is the one that was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataCheck {
    /// Nobody has looked.
    NotAsked,
    /// Its digest is that of the manifest.
    Passed,
    /// The manifest has no digest to compare with.
    Impossible,
}

/// Reads the whole data file and compares its digest with the manifest's. `progress` hears how many bytes are read, and
/// how many there are.
///
/// # Errors
/// [`BundleError`] with the file's name: the digests differ, or the file can't be read.
pub fn check_data(bundle: &Bundle, progress: &mut dyn FnMut(u64, u64)) -> Result<DataCheck, BundleError> {
    let expected = &bundle.manifest().data_digest;
    if expected.is_empty() {
        return Ok(DataCheck::Impossible);
    }
    let found = data_digest(bundle.folder(), progress)?;
    if found == *expected {
        return Ok(DataCheck::Passed);
    }
    let expected = expected.clone();
    Err(BundleError::DataDigest { found, expected }.at(&bundle.folder().join(DATA_FILE)))
}

/// Bytes of a file; none where it doesn't exist, as a bundle whose constants are all in the graph has no data file.
pub(super) fn length(path: &Path) -> Result<u64, BundleError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(BundleError::io("read the file's length")(error).at(path)),
    }
}
