//! The virtual environment whose pip fetches the wheels.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::links;

/// The oldest Python that this takes.
const MINIMUM: (u32, u32) = (3, 10);
/// The Pythons that all wheels exist for. Only the libraries inside are wanted, so another Python fetches the wheels
/// made for `OTHERWISE`.
const WITH_WHEELS: std::ops::RangeInclusive<(u32, u32)> = (3, 11)..=(3, 14);
const OTHERWISE: (u32, u32) = (3, 12);

const INSTALL_PYTHON: &str =
    "install Python 3.10 or newer, on Debian and Ubuntu with `apt-get install python3 python3-venv`";

/// A virtual environment with pip.
pub(super) struct Environment {
    interpreter: PathBuf,
    version: (u32, u32),
}

impl Environment {
    /// Opens the virtual environment of an earlier set-up or makes a new one.
    pub(super) fn prepare(native: &Path) -> Result<Self> {
        let Some(version) = version_of(Path::new("python3")) else {
            bail!("no python3 found; {INSTALL_PYTHON}");
        };
        if version < MINIMUM {
            bail!("python3 is Python {}.{}; {INSTALL_PYTHON}", version.0, version.1);
        }
        let folder = native.join("python");
        let interpreter = folder.join("bin").join("python");
        if !has_pip(&interpreter) {
            links::remove(&folder)?;
            make(&folder)?;
        }
        let version = version_of(&interpreter).with_context(|| {
            format!(
                "{} doesn't run; remove {}",
                interpreter.display(),
                folder.display()
            )
        })?;
        Ok(Self { interpreter, version })
    }

    /// The interpreter, about to be run.
    pub(super) fn command(&self) -> Command {
        Command::new(&self.interpreter)
    }

    /// What tells pip which wheels to take: nothing where this Python's own do.
    pub(super) fn wheel_tags(&self) -> Vec<String> {
        wheel_tags(self.version)
    }
}

fn wheel_tags(version: (u32, u32)) -> Vec<String> {
    if WITH_WHEELS.contains(&version) {
        return Vec::new();
    }
    let mut tags = vec![
        "--implementation=cp".to_owned(),
        format!("--python-version={}.{}", OTHERWISE.0, OTHERWISE.1),
        format!("--abi=cp{}{}", OTHERWISE.0, OTHERWISE.1),
        "--abi=none".to_owned(),
    ];
    let machine = std::env::consts::ARCH;
    tags.extend(
        (17..=28)
            .rev()
            .map(|minor| format!("--platform=manylinux_2_{minor}_{machine}")),
    );
    tags.push(format!("--platform=manylinux2014_{machine}"));
    tags
}

fn make(folder: &Path) -> Result<()> {
    let output = Command::new("python3")
        .args(["-m", "venv"])
        .arg(folder)
        .output()
        .context("can't run python3")?;
    if output.status.success() {
        return Ok(());
    }
    links::remove(folder)?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("ensurepip") || said.contains("No module named venv") {
        bail!(
            "python3 can't make virtual environments; install what it lacks, on Debian and Ubuntu with `apt-get \
             install python3-venv`"
        );
    }
    bail!(
        "python3 can't make the virtual environment {}: {}",
        folder.display(),
        said.trim()
    );
}

fn version_of(interpreter: &Path) -> Option<(u32, u32)> {
    let output = Command::new(interpreter)
        .args(["-c", "import sys; print(*sys.version_info[:2])"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn has_pip(interpreter: &Path) -> bool {
    Command::new(interpreter)
        .args(["-m", "pip", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_wheels_of_its_own_fetches_those_of_another() {
        assert_eq!(wheel_tags((3, 13)), Vec::<String>::new());
        for version in [(3, 10), (3, 15)] {
            let tags = wheel_tags(version);
            assert!(tags.contains(&"--python-version=3.12".to_owned()), "{tags:?}");
            assert!(
                tags.iter()
                    .any(|tag| tag.starts_with("--platform=manylinux_2_28_")),
                "{tags:?}"
            );
        }
    }
}
