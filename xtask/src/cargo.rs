//! Running cargo from within a chore.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The cargo that runs this chore, as a shell would run it. It tells this program of its package by the environment, and
/// build scripts of dependencies that look at such variables would run again, and what is made of them be compiled again.
pub(crate) fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if is_of_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_package(variable: &OsStr) -> bool {
    let variable = variable.as_encoded_bytes();
    variable.starts_with(b"CARGO_PKG_") || variable.starts_with(b"CARGO_MANIFEST_")
}

/// How programs are built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// For release.
    Release,
    /// As the tests of the workspace build them, so that nothing is compiled after these.
    Tests,
}

/// Builds the programs of `packages`; returns where the programs lie, in the packages' order.
pub(crate) fn build_programs<const N: usize>(profile: Profile, packages: [&str; N]) -> Result<[PathBuf; N]> {
    match profile {
        Profile::Release => build_with_benches(&packages, &[], packages),
        // Dependencies have other features where less than the whole workspace is built.
        Profile::Tests => build(&["--workspace", "--quiet"], packages),
    }
}

/// Builds the release programs of `packages` and their benchmarks called `benches`; returns where those of `wanted` lie,
/// in their order. All are built at once: built one by one, packages choose other features of the dependencies that
/// they share, which are then compiled again for each.
pub(crate) fn build_with_benches<const N: usize>(
    packages: &[&str],
    benches: &[&str],
    wanted: [&str; N],
) -> Result<[PathBuf; N]> {
    let packages = packages.iter().flat_map(|package| ["--package", *package]);
    let benches = benches.iter().flat_map(|bench| ["--bench", *bench]);
    let selection: Vec<&str> = std::iter::once("--release")
        .chain(packages)
        .chain(benches)
        .collect();
    build(&selection, wanted)
}

fn build<const N: usize>(selection: &[&str], wanted: [&str; N]) -> Result<[PathBuf; N]> {
    let mut build = command()
        .args(["build", "--bins", "--message-format=json-render-diagnostics"])
        .args(selection)
        .current_dir(workspace::root())
        .stdout(Stdio::piped())
        .spawn()
        .context("can't run cargo build")?;
    let messages = build.stdout.take().context("cargo build has no output")?;
    let mut programs = wanted.map(|_| None);
    for message in BufReader::new(messages).lines() {
        let message = message.context("can't read what cargo build says")?;
        if let Some((name, path)) = executable(&message)
            && let Some(index) = wanted.iter().position(|program| *program == name)
        {
            programs[index] = Some(path);
        }
    }
    let status = build.wait().context("can't wait for cargo build")?;
    if !status.success() {
        bail!("cargo build failed ({status})");
    }
    let mut found = wanted.map(|_| PathBuf::new());
    for (index, program) in programs.into_iter().enumerate() {
        found[index] = program.with_context(|| format!("cargo built no program {}", wanted[index]))?;
    }
    Ok(found)
}

/// The program's name and place, where a message of cargo's announces one.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_of_no_package() {
        let command = command();
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
        // Cargo has told this test of its package.
        assert!(removed.iter().any(|(name, _)| *name == "CARGO_PKG_NAME"));
        assert!(removed.iter().all(|(name, _)| is_of_package(name)));
    }

    #[test]
    fn only_messages_about_programs_count() {
        let program =
            r#"{"reason":"compiler-artifact","target":{"name":"server"},"executable":"/t/release/server"}"#;
        assert_eq!(
            executable(program),
            Some(("server".to_owned(), PathBuf::from("/t/release/server")))
        );
        let library = r#"{"reason":"compiler-artifact","target":{"name":"server"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
