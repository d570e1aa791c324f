//! The folder that the demo writes to.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Lies in every folder that the demo made: only such a folder is emptied.
const MARK: &str = ".ventral-demo";

/// Makes an empty folder, removing what an earlier demo left in it. A folder with anything else in it is refused.
pub(super) fn prepare(folder: &Path) -> Result<()> {
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            let is_empty = entries.next().is_none();
            if !is_empty && !folder.join(MARK).is_file() {
                bail!(
                    "{} holds files that aren't a demo's; name another folder with --output-dir",
                    folder.display()
                );
            }
            fs::remove_dir_all(folder).with_context(|| format!("can't empty {}", folder.display()))?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("can't use {} as a folder", folder.display()));
        }
    }
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join(MARK), ""))
        .with_context(|| format!("can't write to {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_demo_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("demo");
        prepare(&folder).unwrap();
        fs::write(folder.join("picture.png"), "").unwrap();
        prepare(&folder).unwrap();
        assert!(!folder.join("picture.png").exists());
    }

    #[test]
    fn anything_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let thesis = folder.path().join("thesis.tex");
        fs::write(&thesis, "").unwrap();
        let error = prepare(folder.path()).unwrap_err();
        assert!(error.to_string().contains("--output-dir"), "{error}");
        assert!(thesis.exists());
        assert!(prepare(&thesis).is_err());
    }
}
