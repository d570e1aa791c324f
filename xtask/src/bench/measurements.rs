//! Runs the crates' benchmark programs and collects what they measured: JSON objects a line,
//! `{"name": …, "value": …, "unit": …}`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// What a program measured, by name.
#[derive(Debug, Default)]
pub(super) struct Measurements(BTreeMap<String, f64>);

#[derive(Deserialize)]
struct Line {
    name: String,
    value: f64,
}

/// Runs a benchmark program, and returns what it printed; what it says besides goes to the terminal.
pub(super) fn output_of<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String> {
    run(Command::new(program).args(arguments))
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("can't run {program}"))?;
    if !output.status.success() {
        bail!(
            "the benchmark {program} failed ({}); the lines above say why",
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Measurements {
    /// Runs a benchmark program.
    pub(super) fn of<S: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        Self::parse(&output_of(program, arguments)?)
    }

    /// Runs a command that measures.
    pub(super) fn of_command(command: &mut Command) -> Result<Self> {
        Self::parse(&run(command)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let measurement = |line: &str| {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("a benchmark printed `{line}`, which is no measurement"))?;
            Ok((line.name, line.value))
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(measurement).collect::<Result<_>>().map(Self)
    }

    /// A measurement that the program must have made.
    pub(super) fn get(&self, name: &str) -> Result<f64> {
        let value = self.0.get(name).copied();
        value.with_context(|| format!("the benchmark hasn't measured `{name}`"))
    }

    /// Measurements whose name begins with `prefix`, by the rest of the name.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let entries = self.0.iter();
        entries.filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, *value)))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, f64); N]> for Measurements {
    fn from(entries: [(&str, f64); N]) -> Self {
        Self(entries.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_measurements() {
        let text =
            "{\"name\":\"forward.b1\",\"value\":0.19,\"unit\":\"s\"}\n\n{\"name\":\"load\",\"value\":1}\n";
        let measurements = Measurements::parse(text).unwrap();
        assert_eq!(measurements.get("forward.b1").unwrap(), 0.19);
        assert_eq!(measurements.get("load").unwrap(), 1.0);
        assert_eq!(measurements.below("forward.").collect::<Vec<_>>(), [("b1", 0.19)]);
        let missing = measurements.get("forward.b8").unwrap_err().to_string();
        assert!(missing.contains("forward.b8"), "{missing}");
    }

    #[test]
    fn anything_else_is_refused_with_its_words() {
        let error = Measurements::parse("running 0 tests\n").unwrap_err().to_string();
        assert!(error.contains("running 0 tests"), "{error}");
    }
}
