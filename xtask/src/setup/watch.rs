//! Running a command that takes long, and showing how far it is.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::report;

/// Runs `command` to its end, showing meanwhile how many bytes the folders hold.
pub(super) fn watch(mut command: Command, verb: &str, folders: &[&Path]) -> std::io::Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut progress = report::Progress::new();
    let start = Instant::now();
    let mut stderr = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(stderr) = &mut stderr {
            // What could be read until the pipe broke is all there is to say.
            let _ = std::io::Read::read_to_end(stderr, &mut said);
        }
        said
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let bytes: u64 = folders.iter().map(|folder| size(folder)).sum();
        progress.update(&format!(
            "  {verb} {} MB, {} s",
            bytes / 1_000_000,
            start.elapsed().as_secs()
        ));
        std::thread::sleep(Duration::from_millis(200));
    };
    Ok(Output {
        status,
        stdout: Vec::new(),
        stderr: said.join().unwrap_or_default(),
    })
}

/// The bytes of all files below `folder`; what vanishes meanwhile counts as nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
