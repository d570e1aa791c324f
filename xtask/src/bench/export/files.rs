//! The files of the export benchmark, gigabytes of them: where they lie, and that they are gone in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::disk;
use crate::workspace;

/// The model's name in the repository.
pub(super) const MODEL: &str = "lc-resnet18";
/// Its version.
pub(super) const VERSION: &str = "1";

/// A folder below target/bench. Dropped, it is removed, unless it is to be kept.
pub(super) struct Files {
    folder: PathBuf,
    keep: bool,
}

impl Files {
    /// Makes the folder for a network of some width. What an interrupted run has left there is removed; what was kept
    /// stays where it is to be kept again.
    pub(super) fn prepare(width: usize, keep: bool) -> Result<Self> {
        let folder = workspace::bench_folder().join(format!("export-width{width}"));
        Self::in_folder(folder, keep)
    }

    fn in_folder(folder: PathBuf, keep: bool) -> Result<Self> {
        if folder.exists() && !keep {
            fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
        Ok(Self { folder, keep })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.folder.join("untrained.safetensors")
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.folder.join("models")
    }

    pub(super) fn bundle(&self) -> PathBuf {
        self.repository().join(MODEL).join(VERSION)
    }

    /// Whether there is a whole bundle: the exporter gives it its name only then.
    pub(super) fn has_bundle(&self) -> bool {
        self.bundle().exists()
    }

    /// Bytes that will be written, for a checkpoint of `checkpoint` bytes: itself, the bundle, a copy.
    pub(super) fn disk_needed(&self, checkpoint: u64) -> u64 {
        let files = match (self.checkpoint().exists(), self.has_bundle()) {
            (true, true) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
        };
        // For headers, logs and the file system itself.
        files * (checkpoint + checkpoint / 50)
    }

    /// The time that a plain copy of the checkpoint takes; the copy is removed.
    pub(super) fn time_copy(&self) -> Result<Duration> {
        let copied = self.folder.join("copy.safetensors");
        let duration = disk::copy(&self.checkpoint(), &copied)?;
        fs::remove_file(&copied).with_context(|| format!("can't remove {}", copied.display()))?;
        Ok(duration)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.keep {
            // The next run tries again, and says what is in the way.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_removed_unless_they_are_kept() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("export");
        let kept = Files::in_folder(folder.clone(), true).unwrap();
        assert_eq!(kept.disk_needed(100), 306);
        fs::write(kept.checkpoint(), "weights").unwrap();
        kept.time_copy().unwrap();
        drop(kept);

        let again = Files::in_folder(folder.clone(), true).unwrap();
        assert!(again.checkpoint().exists() && !again.has_bundle());
        assert_eq!(
            fs::read_dir(again.folder()).unwrap().count(),
            1,
            "the copy is removed"
        );
        assert_eq!(again.disk_needed(100), 204);
        fs::create_dir_all(again.bundle()).unwrap();
        assert_eq!(again.disk_needed(100), 0);
        drop(again);

        let fresh = Files::in_folder(folder.clone(), false).unwrap();
        assert!(!fresh.checkpoint().exists());
        drop(fresh);
        assert!(!folder.exists());
    }
}
