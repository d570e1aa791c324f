//! Publishes bundles: everything is written to a hidden folder beside the versions, which is then renamed. A reader of
//! the repository sees a whole version or none.

use std::fs::{self, File, TryLockError};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::ModelName;
use crate::error::ExportError;

/// The hidden folder in a model's folder. The model's folder is locked while it is there, so that one that a killed
/// process has left can be told, and is overwritten.
const TEMPORARY: &str = ".exporting";

/// The version of a bundle: its folder's name.
pub type Version = NonZeroU32;

/// A bundle that isn't published yet. Dropped, it removes whatever it has made.
#[derive(Debug)]
pub struct PendingBundle {
    version: Version,
    temporary: PathBuf,
    destination: PathBuf,
    /// Folders that didn't exist before, outermost first.
    created: Vec<PathBuf>,
    /// Locked as long as it is open; where the file system has no locks, only open.
    model_folder: File,
    published: bool,
}

impl PendingBundle {
    /// Makes an empty hidden folder for a version of a model; without a version, for the one after the last.
    ///
    /// # Errors
    /// [`ExportError::VersionExists`], [`ExportError::NoVersionLeft`], [`ExportError::Busy`] while another process
    /// exports to the same model, [`ExportError::Io`].
    pub fn begin(
        repository: &Path,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Self, ExportError> {
        let folder = repository.join(model.to_string());
        let mut created = CreatedFolders::default();
        created.create(&folder)?;
        let model_folder = lock(&folder)?;
        let next = next_version(&folder)?;
        let version = match (version, next) {
            (Some(version), _) => version,
            (None, Some(next)) => next,
            (None, None) => {
                return Err(ExportError::NoVersionLeft {
                    model: model.to_string(),
                });
            }
        };
        let destination = folder.join(version.to_string());
        // A broken symbolic link exists too.
        if destination.symlink_metadata().is_ok() {
            return Err(ExportError::VersionExists {
                model: model.to_string(),
                version: version.get(),
                next: next.unwrap_or(version).get(),
                path: destination,
            });
        }
        let temporary = folder.join(TEMPORARY);
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ExportError::io("remove the leftover", &temporary)(error));
            }
            _ => fs::create_dir(&temporary).map_err(ExportError::io("create the folder", &temporary))?,
        }
        Ok(Self {
            version,
            temporary,
            destination,
            created: created.keep(),
            model_folder,
            published: false,
        })
    }

    /// Where the files are to be written.
    pub fn folder(&self) -> &Path {
        &self.temporary
    }

    /// The version that the bundle will have.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Gives the folder its name, and returns its path. The files in it have to be synced already.
    ///
    /// # Errors
    /// [`ExportError::Io`]; nothing is left behind.
    pub fn publish(mut self) -> Result<PathBuf, ExportError> {
        let sync = ExportError::io("sync the folder", &self.temporary);
        File::open(&self.temporary)
            .and_then(|folder| folder.sync_all())
            .map_err(sync)?;
        fs::rename(&self.temporary, &self.destination).map_err(ExportError::io(
            "rename the finished bundle to",
            &self.destination,
        ))?;
        self.published = true;
        // The renaming, and then the folders around it.
        let sync = ExportError::io("sync the folder of", &self.destination);
        self.model_folder.sync_all().map_err(sync)?;
        for folder in &self.created {
            if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(ExportError::io("sync the folder", parent))?;
            }
        }
        Ok(self.destination.clone())
    }
}

impl Drop for PendingBundle {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here says more than a failed clean-up would.
            let _ = fs::remove_dir_all(&self.temporary);
            remove_empty(&self.created);
        }
    }
}

/// Folders made on the way to another; dropped, they are removed where they are empty.
#[derive(Default)]
struct CreatedFolders(Vec<PathBuf>);

impl CreatedFolders {
    fn create(&mut self, path: &Path) -> Result<(), ExportError> {
        let missing: Vec<_> = path
            .ancestors()
            .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
            .collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(folder) {
                Ok(()) => self.0.push(folder.into()),
                // Another process was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
                Err(error) => return Err(ExportError::io("create the folder", folder)(error)),
            }
        }
        Ok(())
    }

    fn keep(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for CreatedFolders {
    fn drop(&mut self) {
        remove_empty(&self.0);
    }
}

/// Innermost first. What isn't empty stays, as the operating system refuses to remove it.
fn remove_empty(folders: &[PathBuf]) {
    for folder in folders.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

fn lock(folder: &Path) -> Result<File, ExportError> {
    let file = File::open(folder).map_err(ExportError::io("open the folder", folder))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ExportError::Busy { path: folder.into() }),
        Err(TryLockError::Error(error)) => {
            // Some network file systems have no locks for folders.
            let path = folder.display();
            tracing::warn!("can't lock {path} ({error}): don't run two exports to this model at a time");
            Ok(file)
        }
    }
}

/// One more than the highest version that is there; `None` where that isn't a version.
fn next_version(folder: &Path) -> Result<Option<Version>, ExportError> {
    let mut highest = 0;
    let entries = fs::read_dir(folder).map_err(ExportError::io("list the folder", folder))?;
    for entry in entries {
        let name = entry
            .map_err(ExportError::io("list the folder", folder))?
            .file_name();
        let version = name.to_str().and_then(|name| name.parse::<u32>().ok());
        highest = highest.max(version.unwrap_or(0));
    }
    Ok(highest.checked_add(1).and_then(Version::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ModelName {
        "net".parse().unwrap()
    }

    fn version(number: u32) -> Option<Version> {
        Version::new(number)
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_version_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("deep/repository");
        let pending = PendingBundle::begin(&repository, &name(), None).unwrap();
        fs::write(pending.folder().join("file"), "contents").unwrap();
        assert_eq!(entries(&repository.join("net")), [".exporting"]);
        assert_eq!(pending.version().get(), 1);
        let path = pending.publish().unwrap();
        assert_eq!(path, repository.join("net/1"));
        assert_eq!(entries(&repository.join("net")), ["1"]);
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "contents");
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pending = PendingBundle::begin(&folder.path().join("a/b"), &name(), None).unwrap();
        fs::write(pending.folder().join("file"), "contents").unwrap();
        drop(pending);
        assert_eq!(entries(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn the_next_version_is_one_more_than_the_highest() {
        let folder = tempfile::tempdir().unwrap();
        for existing in ["2", "7", "notes"] {
            fs::create_dir_all(folder.path().join("net").join(existing)).unwrap();
        }
        let pending = PendingBundle::begin(folder.path(), &name(), None).unwrap();
        assert_eq!(pending.version().get(), 8);
        drop(pending);
        let pending = PendingBundle::begin(folder.path(), &name(), version(3)).unwrap();
        assert_eq!(pending.version().get(), 3);
        drop(pending);
        let error = PendingBundle::begin(folder.path(), &name(), version(7)).unwrap_err();
        assert!(
            matches!(
                error,
                ExportError::VersionExists {
                    version: 7,
                    next: 8,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(entries(&folder.path().join("net")), ["2", "7", "notes"]);
    }

    #[test]
    fn leftovers_are_overwritten_but_not_under_a_running_export() {
        let folder = tempfile::tempdir().unwrap();
        let leftover = folder.path().join("net").join(TEMPORARY);
        fs::create_dir_all(&leftover).unwrap();
        fs::write(leftover.join("torn"), "half").unwrap();
        let running = PendingBundle::begin(folder.path(), &name(), None).unwrap();
        assert_eq!(entries(running.folder()), Vec::<String>::new());
        let second = PendingBundle::begin(folder.path(), &name(), None);
        assert!(matches!(second, Err(ExportError::Busy { .. })));
        running.publish().unwrap();
        PendingBundle::begin(folder.path(), &name(), None).unwrap();
    }
}
