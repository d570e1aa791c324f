//! A file mapped into memory for reading: the one place that asks the operating system for it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// Bytes before a page that Linux maps when it is touched, so that their turn costs nothing.
#[cfg(unix)]
const MAPPED_ALONG: usize = 64 << 10;

/// A whole file as bytes. Pages are read when they are touched.
#[derive(Debug)]
pub struct MappedFile(Option<Mmap>);

impl MappedFile {
    /// Maps a file; an empty one gives no bytes.
    ///
    /// # Errors
    /// Those of opening and mapping a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(&File::open(path)?)
    }

    /// Maps a file that is open, and may have no name.
    ///
    /// # Errors
    /// Those of mapping a file.
    pub fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            // Mapping nothing is an error on some systems.
            return Ok(Self(None));
        }
        // SAFETY: the map is read-only. Ventral replaces files by renaming, which leaves a mapped one intact; another
        // program that truncates a file in place while it is read ends this one with SIGBUS, as for any mapping.
        #[expect(unsafe_code, reason = "memory mapping")]
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(Some(map)))
    }

    /// Brings in the pages in which `part` lies, all at once and not one after the other as they are touched. Does nothing
    /// where `part` isn't of this file.
    pub fn load(&self, part: &[u8]) {
        #[cfg(target_os = "linux")]
        if let Some((map, offset)) = self.place(part) {
            // A kernel that doesn't know this advice brings them in as they are touched.
            drop(map.advise_range(memmap2::Advice::PopulateRead, offset, part.len()));
        }
    }

    /// Lets go of the pages in which `part` lies, so that they don't count as this program's memory. They are read again
    /// when they are touched again. Does nothing where `part` isn't of this file.
    pub fn release(&self, part: &[u8]) {
        #[cfg(unix)]
        if let Some((map, offset)) = self.place(part) {
            use memmap2::UncheckedAdvice::DontNeed;
            // What the kernel has mapped along with the part's first page goes too.
            let before = offset.min(MAPPED_ALONG);
            let (offset, length) = (offset - before, part.len() + before);
            // SAFETY: `place` has checked that the range lies inside the map. The map is read-only and backed by a file, so
            // that pages that are dropped come back with the same contents.
            #[expect(unsafe_code, reason = "memory mapping")]
            let released = unsafe { map.unchecked_advise_range(DontNeed, offset, length) };
            // A system that doesn't take the advice keeps the pages, which changes nothing but the accounting.
            drop(released);
        }
    }

    /// Where `part` begins in the map, if it is a part of it.
    #[cfg(unix)]
    fn place(&self, part: &[u8]) -> Option<(&Mmap, usize)> {
        let map = self.0.as_ref()?;
        let offset = (part.as_ptr() as usize).checked_sub(map.as_ptr() as usize)?;
        let end = offset.checked_add(part.len())?;
        (!part.is_empty() && end <= map.len()).then_some((map, offset))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_come_back_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..100_000_u32).map(|index| (index % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert!(*map == bytes);
        map.load(&map[3_000..80_000]);
        map.release(&map[5_000..70_000]);
        map.release(&map);
        map.release(&bytes);
        map.load(&bytes);
        assert!(*map == bytes);
    }
}
