//! Virtual environments: one whose pip fetches the libraries' wheels, one that the Python tests run in.

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

/// The interpreter that environments are made with.
const PYTHON: &str = "python3";

const INSTALL_PYTHON: &str =
    "install Python 3.10 or newer, on Debian and Ubuntu with `apt-get install python3 python3-venv`";

/// A virtual environment with pip.
pub(crate) struct Environment {
    interpreter: PathBuf,
    version: (u32, u32),
}

impl Environment {
    /// Opens the virtual environment that an earlier set-up made in `folder`, or makes a new one in its place.
    pub(super) fn prepare(folder: &Path) -> Result<Self> {
        let Some(version) = version_of(Path::new(PYTHON)) else {
            bail!("no {PYTHON} found; {INSTALL_PYTHON}");
        };
        if version < MINIMUM {
            bail!("{PYTHON} is Python {}.{}; {INSTALL_PYTHON}", version.0, version.1);
        }
        Self::prepare_with(PYTHON, folder)
    }

    /// The same with another interpreter, as [`find`] gives it.
    pub(super) fn prepare_with(python: &str, folder: &Path) -> Result<Self> {
        let interpreter = folder.join("bin").join("python");
        if !has_pip(&interpreter) {
            links::remove(folder)?;
            make(python, folder)?;
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
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.interpreter)
    }

    /// What tells pip which wheels to take: nothing where this Python's own do.
    pub(super) fn wheel_tags(&self) -> Vec<String> {
        wheel_tags(self.version)
    }
}

/// An interpreter of exactly this version, if there is one where programs are looked for.
pub(super) fn find(version: (u32, u32)) -> Option<String> {
    [PYTHON.to_owned(), format!("python{}.{}", version.0, version.1)]
        .into_iter()
        .find(|name| version_of(Path::new(name)) == Some(version))
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

fn make(python: &str, folder: &Path) -> Result<()> {
    let output = Command::new(python)
        .args(["-m", "venv"])
        .arg(folder)
        .output()
        .with_context(|| format!("can't run {python}"))?;
    if output.status.success() {
        return Ok(());
    }
    links::remove(folder)?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("ensurepip") || said.contains("No module named venv") {
        bail!(
            "{python} can't make virtual environments; install what it lacks, on Debian and Ubuntu with `apt-get \
             install {python}-venv`"
        );
    }
    bail!(
        "{python} can't make the virtual environment {}: {}",
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
    fn only_the_version_itself_is_found() {
        assert_eq!(find((3, 1)), None);
        let version = version_of(Path::new(PYTHON)).unwrap();
        assert_eq!(find(version), Some(PYTHON.to_owned()));
    }

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
