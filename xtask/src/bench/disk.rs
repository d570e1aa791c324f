//! The disk that a benchmark needs: whether there is enough of it, and how long a plain copy takes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const BUFFER: usize = 1 << 20;

/// Fails where a folder's file system has less than `needed` bytes left.
pub(super) fn check(folder: &Path, needed: u64) -> Result<()> {
    let available = available(folder)?;
    if available < needed {
        bail!(
            "{} has {:.1} GB of disk left, the benchmark needs {:.1} GB; free some, or take a smaller network with \
             --width",
            folder.display(),
            available as f64 / 1e9,
            needed as f64 / 1e9
        );
    }
    Ok(())
}

/// Copies a file as a program does that reads and writes all of its bytes, and syncs the copy. The standard library's
/// own copying leaves the bytes to the file system, which may share them instead.
pub(super) fn copy(source: &Path, destination: &Path) -> Result<Duration> {
    let start = Instant::now();
    let copy = || {
        let mut input = File::open(source)?;
        let mut output = File::create(destination)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = input.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            output.write_all(&buffer[..length])?;
        }
        output.sync_all()
    };
    copy().with_context(|| format!("can't copy {} to {}", source.display(), destination.display()))?;
    Ok(start.elapsed())
}

/// Bytes that are left on a folder's file system, as `df` knows them.
fn available(folder: &Path) -> Result<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output();
    let output = output.context("can't run df, which knows how much disk is left")?;
    if !output.status.success() {
        bail!(
            "df {} failed: {}",
            folder.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("df says nothing of the disk that is left:\n{text}"))
}

/// The fourth column of the second line, in blocks of 1024 bytes: POSIX says so.
fn parse(text: &str) -> Option<u64> {
    let column = text.lines().nth(1)?.split_whitespace().nth(3)?;
    Some(column.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_that_is_left_is_read_and_compared() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 60 40 60% /\n";
        assert_eq!(parse(text), Some(40 * 1024));
        assert_eq!(parse("nothing"), None);
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), 1).unwrap();
        let error = check(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("--width"), "{error}");
    }

    #[test]
    fn a_copy_has_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (source, copied) = (folder.path().join("a"), folder.path().join("b"));
        let bytes: Vec<u8> = (0..BUFFER * 2 + 17).map(|index| index as u8).collect();
        std::fs::write(&source, &bytes).unwrap();
        copy(&source, &copied).unwrap();
        assert_eq!(std::fs::read(&copied).unwrap(), bytes);
        assert!(copy(&folder.path().join("missing"), &copied).is_err());
    }
}
