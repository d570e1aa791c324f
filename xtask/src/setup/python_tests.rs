//! The virtual environments that the Python tests run in: `target/python-tests` for the bundles', `target/python-client`
//! for the client's, `target/brainscore` for those with Brain-Score. Their packages have other versions of the same
//! dependencies. `target/data-benchmark` and `target/python-baselines` are for what the benchmarks of data and of the server
//! compare with.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::python::{self, Environment};
use super::{links, lock, pip};
use crate::{report, workspace};

/// A copy of the requirements in the environment that has them all installed.
const STAMP: &str = "installed-requirements.txt";

/// The client's folder, seen from the checkout's root.
pub(crate) const CLIENT: &str = "clients/python";

/// Tests that share an environment.
struct Suite {
    /// The environment's name under `target`.
    folder: &'static str,
    /// The packages with their versions, seen from the checkout's root.
    requirements: &'static str,
    /// What is fetched, in words.
    packages: &'static str,
    /// Whether the requirements are all that is wanted, whatever they say that they depend on.
    complete: bool,
}

const BUNDLES: Suite = Suite {
    folder: "python-tests",
    requirements: "tests/python/requirements.txt",
    packages: "the Python tests' packages (about 150 MB)",
    complete: false,
};

const CLIENTS: Suite = Suite {
    folder: "python-client",
    requirements: "clients/python/tests/requirements.txt",
    packages: "the Python client's tests' packages (about 150 MB)",
    complete: false,
};

const BRAIN_SCORE: Suite = Suite {
    folder: "brainscore",
    requirements: "clients/python/tests/brainscore/requirements.txt",
    packages: "Brain-Score and what it needs (about 250 MB)",
    complete: true,
};

/// The Python that Brain-Score is made for.
pub(crate) const BRAIN_SCORE_PYTHON: (u32, u32) = (3, 11);

/// An environment in which modules of the client are found in the checkout, with the stubs that [`prepare_client`]
/// generates.
pub(crate) struct BrainScore(Environment);

impl BrainScore {
    /// The interpreter, about to be run.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.0.command();
        command
            .env("PYTHONPATH", workspace::root().join(CLIENT).join("src"))
            // Otherwise Brain-Score has the first pip that it finds install packages.
            .env("BS_INSTALL_DEPENDENCIES", "no");
        command
    }
}

const DATA_BENCHMARK: Suite = Suite {
    folder: "data-benchmark",
    requirements: "trainer/benches/data/requirements.txt",
    packages: "what the data benchmark compares with (about 25 MB)",
    complete: false,
};

const BASELINES: Suite = Suite {
    folder: "python-baselines",
    requirements: "xtask/src/bench/serve/python/requirements.txt",
    packages: "the packages that the server is compared with (about 80 MB)",
    complete: false,
};

/// Makes the environment of the bundles' tests, or opens the one that was made for the same requirements.
pub(crate) fn prepare() -> Result<Environment> {
    prepare_suite(&BUNDLES, None)
}

/// The same for the tests with Brain-Score; `None` where there is no Python that it's made for.
pub(crate) fn prepare_brain_score() -> Result<Option<BrainScore>> {
    let Some(interpreter) = python::find(BRAIN_SCORE_PYTHON) else {
        return Ok(None);
    };
    prepare_suite(&BRAIN_SCORE, Some(&interpreter)).map(|python| Some(BrainScore(python)))
}

/// The same for the client's tests, with the client of this checkout installed in it.
pub(crate) fn prepare_client() -> Result<Environment> {
    let python = prepare_suite(&CLIENTS, None)?;
    // Each time: it generates the stubs.
    let folder = folder(&CLIENTS);
    let temporary = folder.join("pip");
    fs::create_dir_all(&temporary)
        .with_context(|| format!("can't make the folder {}", temporary.display()))?;
    pip::run(
        &python,
        "the Python client",
        |pip| {
            pip.args([
                "install",
                "--no-deps",
                "--no-build-isolation",
                "--no-index",
                "--editable",
            ])
            .arg(workspace::root().join(CLIENT));
        },
        &temporary,
        &[&folder.join("lib")],
    )?;
    links::remove(&temporary)?;
    Ok(python)
}

/// The same for `cargo xtask bench data`.
pub(crate) fn prepare_data_benchmark() -> Result<Environment> {
    prepare_suite(&DATA_BENCHMARK, None)
}

/// The same for the servers that ours is compared with.
pub(crate) fn prepare_baselines() -> Result<Environment> {
    prepare_suite(&BASELINES, None)
}

/// `interpreter` makes the environment; `None`: any that will do.
fn prepare_suite(suite: &Suite, interpreter: Option<&str>) -> Result<Environment> {
    let Suite {
        requirements: name,
        packages,
        complete,
        ..
    } = suite;
    let requirements_path = workspace::root().join(name);
    let requirements = fs::read(&requirements_path)
        .with_context(|| format!("can't read {}", requirements_path.display()))?;
    let native = workspace::native_folder();
    let _lock = lock(&native)?;

    let folder = folder(suite);
    let stamp = folder.join(STAMP);
    if fs::read(&stamp).ok().as_ref() != Some(&requirements) {
        links::remove(&folder)?;
    }
    // It makes the folder anew, without the stamp, where the environment doesn't run any more.
    let python = match interpreter {
        Some(interpreter) => Environment::prepare_with(interpreter, &folder)?,
        None => Environment::prepare(&folder)?,
    };
    if stamp.is_file() {
        report::line(&format!("Python packages: those of {name} (set up)"));
        return Ok(python);
    }
    report::line(&format!("fetching {packages} …"));
    let temporary = folder.join("pip");
    fs::create_dir_all(&temporary)
        .with_context(|| format!("can't make the folder {}", temporary.display()))?;
    pip::run(
        &python,
        packages,
        |pip| {
            pip.args(["install", "--only-binary=:all:"])
                .args(complete.then_some("--no-deps"))
                .arg("--requirement")
                .arg(&requirements_path);
        },
        &temporary,
        &[&folder.join("lib")],
    )?;
    links::remove(&temporary)?;
    fs::write(&stamp, requirements).with_context(|| format!("can't write {}", stamp.display()))?;
    Ok(python)
}

fn folder(suite: &Suite) -> PathBuf {
    workspace::root().join("target").join(suite.folder)
}
