//! The files of projections beside a model: `REPOSITORY/<model>/<version>/projections/<name>.safetensors`.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The folder beside a bundle's graph.
pub(crate) const FOLDER: &str = "projections";

/// The end of a projection's file name.
const EXTENSION: &str = "safetensors";

/// The end of the name of a file that isn't complete.
const PARTIAL: &str = "partial";

/// The files of the projections beside a bundle, by name.
pub(super) fn files(bundle: &Path) -> BTreeMap<String, PathBuf> {
    let named = |entry: DirEntry| {
        let path = entry.path();
        let name = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == EXTENSION && path.is_file()).then_some((name, path))
    };
    // A bundle without the folder has no projections.
    let entries = bundle.join(FOLDER).read_dir();
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(named)
        .collect()
}

/// Writes files beside a bundle, each a checked name and its bytes, in the places of those that have their names. None is
/// written where one of them can't be.
pub(super) fn write<'a>(
    bundle: &Path,
    files: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
) -> io::Result<()> {
    let folder = bundle.join(FOLDER);
    let path = |name: &str, extension: &str| folder.join(format!("{name}.{extension}"));
    fs::create_dir_all(&folder)?;
    let write = |(name, bytes): (&str, &[u8])| {
        let mut file = File::create(path(name, PARTIAL))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    let written = files.clone().try_for_each(write);
    if written.is_err() {
        for (name, _) in files {
            // What isn't there needn't be removed; the reason that is told is why it couldn't be written.
            let _ = fs::remove_file(path(name, PARTIAL));
        }
        return written;
    }
    files
        .map(|(name, _)| fs::rename(path(name, PARTIAL), path(name, EXTENSION)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_and_found() {
        let bundle = tempfile::tempdir().unwrap();
        assert!(files(bundle.path()).is_empty());
        let written = [("pca.relu", b"one".as_slice()), ("pca.layer1", b"two")];
        write(bundle.path(), written.into_iter()).unwrap();
        write(bundle.path(), [("pca.relu", b"three".as_slice())].into_iter()).unwrap();
        let found = files(bundle.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["pca.layer1", "pca.relu"]);
        assert_eq!(fs::read(&found["pca.relu"]).unwrap(), b"three");
        assert_eq!(fs::read_dir(bundle.path().join(FOLDER)).unwrap().count(), 2);
    }

    #[test]
    fn nothing_is_left_of_files_that_can_not_all_be_written() {
        let bundle = tempfile::tempdir().unwrap();
        // A folder is in the second one's way.
        fs::create_dir_all(bundle.path().join(FOLDER).join("second.partial")).unwrap();
        let refused = [("first", b"one".as_slice()), ("second", b"two")];
        write(bundle.path(), refused.into_iter()).unwrap_err();
        assert!(files(bundle.path()).is_empty());
        assert_eq!(fs::read_dir(bundle.path().join(FOLDER)).unwrap().count(), 1);
    }
}
