//! What the links under `target/native` stand for, so that a second set-up sees that nothing is left to do.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Variant;

/// PyTorch's release: the one that torch-sys's bindings were generated from.
pub(super) const TORCH_VERSION: &str = "2.13.0";
/// ONNX Runtime's release.
pub(super) const ONNXRUNTIME_VERSION: &str = "1.31.0";
/// To be raised when the folders' contents or the links change, so that older set-ups are made anew.
const LAYOUT: u32 = 1;

const FILE_NAME: &str = "setup.json";

/// A finished set-up.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Stamp {
    pub(super) variant: Variant,
    torch: String,
    onnxruntime: String,
    layout: u32,
}

impl Stamp {
    /// What a set-up of `variant` leaves behind today.
    pub(super) fn of(variant: Variant) -> Self {
        Self {
            variant,
            torch: TORCH_VERSION.to_owned(),
            onnxruntime: ONNXRUNTIME_VERSION.to_owned(),
            layout: LAYOUT,
        }
    }

    /// The set-up found, if it was finished.
    pub(super) fn read(native: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(native.join(FILE_NAME)).ok()?).ok()
    }

    /// Says that the set-up is finished.
    pub(super) fn write(&self, native: &Path) -> Result<()> {
        let path = native.join(FILE_NAME);
        let text = serde_json::to_string_pretty(self)?;
        fs::write(&path, text + "\n").with_context(|| format!("can't write {}", path.display()))
    }

    /// Says that there is no finished set-up for now.
    pub(super) fn remove(native: &Path) -> Result<()> {
        super::links::remove(&native.join(FILE_NAME))
    }

    /// The folder of the unpacked wheels. Its name holds everything that its contents depend on.
    pub(super) fn site_folder(&self) -> String {
        format!(
            "{}torch-{}-onnxruntime-{}-{}",
            self.site_prefix(),
            self.torch,
            self.onnxruntime,
            self.layout
        )
    }

    /// Whether a folder holds the unpacked wheels of other versions, for the same processors.
    pub(super) fn replaces(&self, folder: &str) -> bool {
        folder.starts_with(&self.site_prefix()) && folder != self.site_folder()
    }

    fn site_prefix(&self) -> String {
        format!("site-{}-", self.variant.to_string().to_lowercase())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "libtorch {} and ONNX Runtime {} for {}",
            self.torch, self.onnxruntime, self.variant
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_up_replaces_those_of_other_versions_for_the_same_processors() {
        let stamp = Stamp::of(Variant::Cpu);
        assert!(!stamp.replaces(&stamp.site_folder()));
        assert!(stamp.replaces("site-cpu-torch-2.0.0-onnxruntime-1.0.0-1"));
        assert!(!stamp.replaces(&Stamp::of(Variant::Cuda).site_folder()));
        assert!(!stamp.replaces("python"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Stamp::read(folder.path()), None);
        Stamp::of(Variant::Cuda).write(folder.path()).unwrap();
        assert_eq!(Stamp::read(folder.path()), Some(Stamp::of(Variant::Cuda)));
        Stamp::remove(folder.path()).unwrap();
        assert_eq!(Stamp::read(folder.path()), None);
    }
}
