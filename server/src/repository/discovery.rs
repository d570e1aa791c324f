//! Finds bundles in the folders of a model repository, and tells whether one has been replaced.

use std::ffi::OsString;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::RepositoryError;
use crate::error::chain;
use crate::projection;
use crate::weight_files::number;

/// A folder in which a bundle should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The model's name.
    pub model: String,
    /// Positive.
    pub version: u64,
    /// `REPOSITORY/<model>/<version>`.
    pub folder: PathBuf,
}

/// What a repository's folders hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The folders of all versions of all models, sorted.
    pub locations: Vec<Location>,
    /// Folders in models' folders whose names are no versions.
    pub skipped: Vec<PathBuf>,
    /// Models' folders that can't be read: what they hold isn't known.
    pub unreadable: Vec<Unreadable>,
}

/// A model's folder that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The model's name.
    pub model: String,
    /// Why.
    pub error: String,
}

/// What tells the files in a folder from those that replace them: names, sizes, times, and what the file system numbers
/// them with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<File>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    name: OsString,
    bytes: u64,
    modified: Option<SystemTime>,
    /// Device and inode, where there are such.
    number: (u64, u64),
}

impl Stamp {
    /// Looks at the files of a folder; a folder that can't be read is as one without files.
    pub fn of(folder: &Path) -> Self {
        let file = |entry: io::Result<DirEntry>| {
            let entry = entry?;
            // Projections come and go beside a model that stays.
            if entry.file_name() == projection::FOLDER {
                return Ok(None);
            }
            let metadata = entry.path().metadata()?;
            Ok(Some(File {
                name: entry.file_name(),
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
                number: number(&metadata),
            }))
        };
        let files = folder.read_dir().map(|entries| entries.map(file));
        let files: Vec<io::Result<Option<File>>> = files.map(Iterator::collect).unwrap_or_default();
        // A file that can't be looked at now will make a difference when it can be.
        let mut files: Vec<_> = files.into_iter().filter_map(Result::ok).flatten().collect();
        files.sort();
        Self(files)
    }
}

/// Finds the folders of all versions of all models. A model's folder that can't be read, as a disk's own `lost+found` can't,
/// leaves the others alone.
///
/// # Errors
/// [`RepositoryError::Missing`] and [`RepositoryError::Read`] of the repository itself.
pub fn discover(path: &Path) -> Result<Discovery, RepositoryError> {
    if !path.exists() {
        return Err(RepositoryError::Missing { path: path.into() });
    }
    let mut found = Discovery::default();
    for (name, folder) in folders(path)? {
        let versions = match versions(&folder) {
            Ok(versions) => versions,
            Err(error) => {
                let error = chain(&error);
                found.unreadable.push(Unreadable { model: name, error });
                continue;
            }
        };
        for (version_name, folder) in versions {
            match parse_version(&version_name) {
                Some(version) => found.locations.push(Location {
                    model: name.clone(),
                    version,
                    folder,
                }),
                None => found.skipped.push(folder),
            }
        }
    }
    found.locations.sort();
    Ok(found)
}

/// The folders in a model's folder; none, where the model was removed a moment ago.
fn versions(model: &Path) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
    match folders(model) {
        Err(RepositoryError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        found => found,
    }
}

/// A folder's subfolders by name. Hidden ones are left out, and those whose names aren't Unicode: no request could name
/// them.
fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
    let failed = |source| RepositoryError::Read {
        path: path.into(),
        source,
    };
    let named = |entry: io::Result<DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().into_string().ok(), entry.path()))
    };
    let entries: io::Result<Vec<_>> = path.read_dir().map_err(failed)?.map(named).collect();
    let visible = entries.map_err(failed)?.into_iter().filter_map(|(name, path)| {
        let name = name.filter(|name| !name.starts_with('.'))?;
        path.is_dir().then_some((name, path))
    });
    Ok(visible.collect())
}

/// A version as folders and requests write it: a whole number from 1, without leading zeros.
pub(super) fn parse_version(name: &str) -> Option<u64> {
    let version = name.parse().ok()?;
    (version > 0 && u64::to_string(&version) == name).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_sorted_as_numbers() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["b/10", "b/9", "a/1", "b/draft", "b/01", "b/0", ".git/1", "empty"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("b/7"), "a file").unwrap();
        let found = discover(root.path()).unwrap();
        assert_eq!(found.skipped.len(), 3);
        let found: Vec<_> = found
            .locations
            .iter()
            .map(|l| (l.model.as_str(), l.version))
            .collect();
        assert_eq!(found, [("a", 1), ("b", 9), ("b", 10)]);
    }

    #[test]
    fn a_repository_that_is_no_folder_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let missing = discover(&root.path().join("nothing")).unwrap_err();
        assert!(matches!(missing, RepositoryError::Missing { .. }), "{missing:?}");
        std::fs::write(root.path().join("file"), "").unwrap();
        let file = discover(&root.path().join("file")).unwrap_err();
        assert!(matches!(file, RepositoryError::Read { .. }), "{file:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_model_s_folder_that_cannot_be_read_leaves_the_others() {
        use std::os::unix::fs::PermissionsExt as _;

        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/1")).unwrap();
        let closed = root.path().join("lost+found");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let found = discover(root.path()).unwrap();
        assert_eq!(found.locations.len(), 1);
        // Root may read it.
        if closed.read_dir().is_err() {
            assert_eq!(found.unreadable[0].model, "lost+found");
        }
    }

    #[test]
    fn a_stamp_changes_with_a_file_that_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let one = Stamp::of(root.path());
        assert_eq!(one, Stamp::of(root.path()));
        let other = root.path().join("other");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(one, Stamp::of(root.path()));
        assert_eq!(Stamp::of(&root.path().join("nothing")), Stamp::default());
    }
}
