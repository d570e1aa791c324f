//! What figures depend on: the machine, the versions, the number of threads.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::{setup, workspace};

/// Where and with what a benchmark was run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Environment {
    machine: Machine,
    versions: BTreeMap<&'static str, String>,
    /// Threads that computed.
    threads: usize,
    /// Seconds since 1970.
    time: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    /// In bytes.
    memory: u64,
    operating_system: String,
}

impl Environment {
    /// This machine, with what the checkout holds.
    pub(super) fn of_this_run(threads: usize) -> Self {
        let mut versions: BTreeMap<_, _> = setup::library_versions()
            .into_iter()
            .map(|(name, version)| (name, version.to_owned()))
            .collect();
        versions.insert("ventral", env!("CARGO_PKG_VERSION").to_owned());
        // Some checkouts have no history, some machines no such program: these are then left out.
        let rust = said(Command::new("rustc").arg("--version"));
        let release = |version: String| version.trim_start_matches("rustc ").to_owned();
        versions.extend(rust.map(|version| ("rust", release(version))));
        let commit = Command::new("git")
            .args(["rev-parse", "HEAD"])
            .current_dir(workspace::root())
            .output();
        let commit = commit.ok().filter(|output| output.status.success());
        versions.extend(commit.map(|output| {
            (
                "commit",
                String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            )
        }));
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            machine: Machine::this(),
            versions,
            threads,
            time: time.map_or(0, |time| time.as_secs()),
        }
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let Machine {
            processor,
            cores,
            memory,
            operating_system,
        } = &self.machine;
        let versions: Vec<_> = self
            .versions
            .iter()
            .filter(|(name, _)| **name != "commit")
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        format!(
            "{processor}, {cores} cores, {:.0} GiB of memory, {operating_system}; {} threads; {}",
            *memory as f64 / (1_u64 << 30) as f64,
            self.threads,
            versions.join(", ")
        )
    }
}

impl Machine {
    fn this() -> Self {
        let unknown = || "unknown".to_owned();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
        let kibibytes =
            field(&memory, "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
        Self {
            processor: field(&processors, "model name").map_or_else(unknown, str::to_owned),
            cores: cores(),
            memory: kibibytes.unwrap_or(0) * 1024,
            operating_system: kernel
                .map_or_else(|_| unknown(), |release| format!("Linux {}", release.trim())),
        }
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The value of the first line `name: value`, as files under /proc have them.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
}

/// The first line of what a program says, if it runs.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel name\t: Fast One\nmodel\t\t: 7\nMemTotal:       16 kB\n";
        assert_eq!(field(text, "model name"), Some("Fast One"));
        assert_eq!(field(text, "model"), Some("7"));
        assert_eq!(field(text, "MemTotal"), Some("16 kB"));
        assert_eq!(field(text, "Mem"), None);
    }

    #[test]
    fn this_machine_is_described() {
        let environment = Environment::of_this_run(3);
        let json = serde_json::to_value(&environment).unwrap();
        assert_eq!(json["threads"], 3);
        assert!(json["machine"]["cores"].as_u64().unwrap() > 0);
        assert!(json["machine"]["memory"].as_u64().unwrap() > 1 << 20);
        assert_eq!(json["versions"]["ventral"], env!("CARGO_PKG_VERSION"));
        assert!(environment.line().contains("3 threads"));
    }
}
