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

/// Removes what servers that were killed have left of files that they wrote, but not what one is writing now.
pub(super) fn remove_leftovers(bundle: &Path) {
    let entries = bundle.join(FOLDER).read_dir().into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let is_partial = path.extension().is_some_and(|extension| extension == PARTIAL);
        let is_left = |path| File::open(path).is_ok_and(|file| file.try_lock().is_ok());
        if is_partial && path.is_file() && is_left(&path) {
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(file = %path.display(), "what a killed server left was removed"),
                Err(error) => tracing::warn!(
                    file = %path.display(),
                    %error,
                    "what a killed server left can't be removed: it only takes room"
                ),
            }
        }
    }
}

/// Writes files beside a bundle, each a checked name and its bytes, in the places of those that have their names. None is
/// written where one of them can't be.
pub(super) fn write<'a>(
    bundle: &Path,
    mut files: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
) -> io::Result<()> {
    let folder = bundle.join(FOLDER);
    let path = |name: &str, extension: &str| folder.join(format!("{name}.{extension}"));
    fs::create_dir_all(&folder)?;
    let write = |(name, bytes): (&str, &[u8])| {
        let mut file = File::create(path(name, PARTIAL))?;
        // Other servers see that it isn't left over. Where files can't be locked, they take none for left over.
        let _ = file.lock();
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    let written = files.clone().map(write).collect::<io::Result<Vec<_>>>();
    let _locked = match written {
        Ok(locked) => locked,
        Err(error) => {
            for (name, _) in files {
                // What isn't there needn't be removed; the reason that is told is why it couldn't be written.
                let _ = fs::remove_file(path(name, PARTIAL));
            }
            return Err(error);
        }
    };
    files.try_for_each(|(name, _)| fs::rename(path(name, PARTIAL), path(name, EXTENSION)))
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
    fn what_a_killed_server_left_is_removed() {
        let bundle = tempfile::tempdir().unwrap();
        remove_leftovers(bundle.path());
        write(bundle.path(), [("whole", b"one".as_slice())].into_iter()).unwrap();
        let folder = bundle.path().join(FOLDER);
        for name in ["left.partial", "written.partial", "notes.txt"] {
            fs::write(folder.join(name), b"some").unwrap();
        }
        fs::create_dir(folder.join("folder.partial")).unwrap();
        let written = File::open(folder.join("written.partial")).unwrap();
        written.lock().unwrap();
        remove_leftovers(bundle.path());
        let mut names: Vec<_> = folder
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        let expected = [
            "folder.partial",
            "notes.txt",
            "whole.safetensors",
            "written.partial",
        ];
        assert_eq!(names, expected);
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
