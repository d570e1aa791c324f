//! A file mapped into memory for reading: the one place that asks the operating system for it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// A whole file as bytes. Pages are read when they are touched.
#[derive(Debug)]
pub struct MappedFile(Option<Mmap>);

impl MappedFile {
    /// Maps a file; an empty one gives no bytes.
    ///
    /// # Errors
    /// Those of opening and mapping a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            // Mapping nothing is an error on some systems.
            return Ok(Self(None));
        }
        // SAFETY: the map is read-only. Ventral replaces files by renaming, which leaves a mapped one intact; another
        // program that truncates a file in place while it is read ends this one with SIGBUS, as for any mapping.
        #[expect(unsafe_code, reason = "memory mapping")]
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self(Some(map)))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
