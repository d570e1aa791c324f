//! Runs a program to its end, measuring its time and its peak of resident memory.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::environment::field;

/// How often the operating system is asked; a peak in the last moments can be missed by what comes in so short a time.
const INTERVAL: Duration = Duration::from_millis(5);

/// What running a program took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) duration: Duration,
    /// Peak of resident memory in bytes, mapped files included: the operating system's high-water mark.
    pub(super) peak_resident: u64,
    /// The largest seen of what no file is behind, in bytes.
    pub(super) peak_anonymous: u64,
}

/// Runs a program that must succeed, its output on the terminal.
pub(super) fn run(command: &mut Command) -> Result<Usage> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("can't run {name}"))?;
    let path = format!("/proc/{}/status", child.id());
    let (mut peak_resident, mut peak_anonymous) = (0, 0);
    let (status, duration) = loop {
        let waited = child
            .try_wait()
            .with_context(|| format!("can't wait for {name}"))?;
        if let Some(status) = waited {
            break (status, start.elapsed());
        }
        // A program that has just ended has no memory any more.
        let memory = fs::read_to_string(&path).unwrap_or_default();
        peak_resident = peak_resident.max(bytes(&memory, "VmHWM").unwrap_or(0));
        peak_anonymous = peak_anonymous.max(bytes(&memory, "RssAnon").unwrap_or(0));
        std::thread::sleep(INTERVAL);
    };
    if !status.success() {
        bail!("{name} failed ({status}); the lines above say why");
    }
    Ok(Usage {
        duration,
        peak_resident,
        peak_anonymous,
    })
}

fn bytes(status: &str, name: &str) -> Option<u64> {
    let kibibytes: u64 = field(status, name)?.strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_peak_is_seen() {
        // The shell holds a string of 64 MiB for a moment.
        let script = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); sleep 2; echo ${#x} > /dev/null";
        let usage = run(Command::new("sh").args(["-c", script])).unwrap();
        assert!(usage.peak_resident >= 64 << 20, "{usage:?}");
        assert!(usage.peak_anonymous >= 64 << 20, "{usage:?}");
    }

    #[test]
    fn a_program_that_fails_is_an_error() {
        let error = run(&mut Command::new("false")).unwrap_err().to_string();
        assert!(error.contains("false failed"), "{error}");
        assert!(run(&mut Command::new("no-such-program")).is_err());
    }
}
