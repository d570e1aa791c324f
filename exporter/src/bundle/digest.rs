//! The digest of a bundle's data file, by which a changed or damaged copy is told from what was exported.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::DATA_FILE;
use crate::error::BundleError;

/// Bytes that are read at a time.
const PART: usize = 4 << 20;

/// BLAKE3 of the data file in a bundle's folder, in hexadecimal. `progress` hears how many bytes are read, and how many
/// there are.
///
/// # Errors
/// [`BundleError::Io`] with the file's name.
pub fn data_digest(folder: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<String, BundleError> {
    let path = folder.join(DATA_FILE);
    let mut digest = || -> io::Result<String> {
        let mut file = File::open(&path)?;
        let total = file.metadata()?.len();
        let mut digest = blake3::Hasher::new();
        let mut buffer = vec![0; PART];
        let mut read = 0;
        loop {
            progress(read, total);
            match file.read(&mut buffer) {
                Ok(0) => return Ok(digest.finalize().to_hex().to_string()),
                Ok(length) => {
                    digest.update(&buffer[..length]);
                    read += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    digest()
        .map_err(BundleError::io("read the file"))
        .map_err(|error| error.at(&path))
}
