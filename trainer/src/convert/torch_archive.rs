//! The zip archive of `torch.save`: a pickle, and every storage as an entry of its own, uncompressed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use model::checkpoint::PendingFile;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// Where PyTorch wants the first byte of a storage: at a multiple of this.
const ALIGNMENT: u16 = 64;

/// The elements of a tensor, which write themselves when their turn comes.
pub(super) trait Storage {
    /// Writes all elements, little-endian, in the order of rows.
    fn write(&self, output: &mut dyn Write) -> io::Result<()>;
    /// Bytes that [`Storage::write`] writes.
    fn length(&self) -> u64;
}

/// Writes an archive beside its place and renames it. The storages are `data/0`, `data/1` and so on.
///
/// # Errors
/// Those of the operating system; the file at `path` is then what it was before, and nothing is left behind.
pub(super) fn write(path: &Path, pickle: &[u8], storages: &[Box<dyn Storage + '_>]) -> io::Result<()> {
    let pending = PendingFile::for_path(path);
    if let Err(error) = write_to(pending.temporary(), path, pickle, storages) {
        // The error that led here says more than a failed clean-up would.
        let _ = fs::remove_file(pending.temporary());
        return Err(error);
    }
    pending.publish().map_err(io::Error::other)
}

fn write_to(
    temporary: &Path,
    path: &Path,
    pickle: &[u8],
    storages: &[Box<dyn Storage + '_>],
) -> io::Result<()> {
    // PyTorch calls the folder in the archive after the file.
    let folder = path
        .file_stem()
        .map_or("archive".into(), |stem| stem.to_string_lossy());
    let mut zip = ZipWriter::new(BufWriter::with_capacity(1 << 20, File::create(temporary)?));
    entry(&mut zip, &format!("{folder}/data.pkl"), pickle)?;
    entry(&mut zip, &format!("{folder}/byteorder"), b"little")?;
    for (index, storage) in storages.iter().enumerate() {
        let options = options().large_file(storage.length() >= u64::from(u32::MAX));
        zip.start_file(format!("{folder}/data/{index}"), options)?;
        storage.write(&mut zip)?;
    }
    entry(&mut zip, &format!("{folder}/version"), b"3\n")?;
    let file = zip
        .finish()?
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

fn entry(zip: &mut ZipWriter<BufWriter<File>>, name: &str, bytes: &[u8]) -> io::Result<()> {
    zip.start_file(name, options())?;
    zip.write_all(bytes)
}

fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT)
}
