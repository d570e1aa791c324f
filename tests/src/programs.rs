//! The programs under test, built with the profile of the tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A command that runs one of Ventral's programs: `trainer`, `exporter` or `server`.
pub fn program(name: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(FOLDER.get_or_init(build).join(name));
    command.stdin(Stdio::null());
    command
}

/// Runs a program that is expected to succeed; returns its standard output.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = program(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program that is expected to fail with exit code 1; returns its standard error.
pub fn failure<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = program(name).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// A file of the checkout.
pub fn in_checkout(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn said(output: &Output) -> String {
    let (status, stderr) = (output.status, String::from_utf8_lossy(&output.stderr));
    format!("{status}\n{stderr}")
}

/// Builds the programs; returns the folder that they are in. A test must never run those of an older checkout, and cargo
/// doesn't build another package's programs for it.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/debug/deps/test-0123
    let folder = test.ancestors().nth(2).unwrap().to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // Cargo tells this test of its package by these, and build scripts of dependencies that look at them would run again.
    for (name, _) in std::env::vars_os() {
        let variable = name.as_encoded_bytes();
        if variable.starts_with(b"CARGO_PKG_") || variable.starts_with(b"CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    // The whole workspace, so that dependencies have the features that `cargo test --workspace` has compiled.
    build.args(["build", "--workspace", "--bins", "--quiet"]);
    build.current_dir(in_checkout("."));
    build.env("CARGO_TARGET_DIR", folder.parent().unwrap());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the programs can't be built");
    folder
}
