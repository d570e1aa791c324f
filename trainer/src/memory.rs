//! What Linux says about memory: lines such as `VmHWM:   1234 kB` in files of /proc.

use std::fs;
use std::path::Path;

/// The memory of this process, in bytes; `None` where the system doesn't tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// Resident now.
    pub(crate) resident: Option<u64>,
    /// The most that was ever resident.
    pub(crate) peak: Option<u64>,
}

impl ProcessMemory {
    /// As it is now.
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident: line(&status, "VmRSS"),
            peak: line(&status, "VmHWM"),
        }
    }
}

/// A line of a file of /proc, in bytes; `None` where there is no such file or no such line.
pub(crate) fn read_line(file: impl AsRef<Path>, name: &str) -> Option<u64> {
    line(&fs::read_to_string(file).ok()?, name)
}

/// The value of the line `NAME: N kB`, in bytes.
fn line(text: &str, name: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_in_kibibytes() {
        let text = "MemTotal:       24684312 kB\nMemAvailable:   23257764 kB\nMem: many kB\n";
        assert_eq!(line(text, "MemAvailable"), Some(23_257_764 * 1024));
        assert_eq!(line(text, "MemFree"), None);
        assert_eq!(line(text, "Mem"), None);
        assert_eq!(line("Huge: 18446744073709551615 kB", "Huge"), None);
    }

    #[test]
    fn the_peak_is_at_least_what_is_resident() {
        let memory = ProcessMemory::now();
        assert!(memory.resident > Some(0));
        assert!(memory.peak >= memory.resident);
    }
}
