//! `cargo xtask test`: every test that fits an ordinary machine.

use std::path::Path;
use std::process::{Child, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result};

use crate::{cargo, report, setup, workspace};
use cargo::Profile;
use setup::{BrainScore, Environment};

/// Names the folder of the programs to the Python tests.
const PROGRAMS_VARIABLE: &str = "VENTRAL_PROGRAMS";

/// Sets up and runs all tests, also those after one that fails; returns the exit code of the first suite that fails.
/// `quick` leaves the Python tests out.
pub(crate) fn run(quick: bool) -> Result<ExitCode> {
    if quick {
        report::line(
            "downloads: libtorch and ONNX Runtime (about 570 MB) unless they are set up, and missing crates",
        );
        report::line(
            "--quick: left out: the Python tests (tests/python, clients/python, Brain-Score among them)",
        );
    } else {
        report::line(
            "downloads: libtorch and ONNX Runtime (about 570 MB), the Python tests' packages (about 300 MB) and \
             Brain-Score's (about 250 MB; --quick leaves both out) unless they are set up, and missing crates",
        );
    }
    setup::set_up_as_before()?;
    // A missing network shows here, not after minutes of tests.
    let python = if quick {
        None
    } else {
        let compiling = Compiling::start()?;
        let python = Python {
            bundles: setup::prepare_python_tests()?,
            client: setup::prepare_client_tests()?,
            brain_score: setup::prepare_brain_score()?,
        };
        compiling.finish()?;
        if python.brain_score.is_none() {
            report::line(&without_brain_score());
        }
        Some(python)
    };

    let status = cargo::command()
        .args(["test", "--workspace", "--no-fail-fast"])
        .current_dir(workspace::root())
        .status()
        .context("can't run cargo test")?;
    let Some(python) = python else {
        return Ok(exit_code(status));
    };
    let in_python = run_python_tests(&python)?;
    Ok(if status.success() {
        in_python
    } else {
        exit_code(status)
    })
}

/// The tests of the workspace being compiled, while packages are fetched. Ends with this, so that an error needn't wait.
struct Compiling(Child);

impl Compiling {
    fn start() -> Result<Self> {
        let compiling = cargo::command()
            .args(["test", "--workspace", "--no-run"])
            .current_dir(workspace::root())
            // Its bar and that of what is fetched would write over each other.
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .stdin(Stdio::null())
            .spawn();
        compiling.map(Self).context("can't run cargo test")
    }

    /// Waits for the end. What can't be compiled is for the one to say who runs the tests.
    fn finish(mut self) -> Result<()> {
        self.0.wait().context("can't wait for cargo test")?;
        Ok(())
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        // Fails where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The environments of the Python tests.
struct Python {
    bundles: Environment,
    client: Environment,
    brain_score: Option<BrainScore>,
}

fn run_python_tests(python: &Python) -> Result<ExitCode> {
    let [trainer, ..] = cargo::build_programs(Profile::Tests, ["trainer", "exporter", "server"])?;
    let programs = trainer.parent().unwrap_or(Path::new("/"));
    let brain_score = python.brain_score.as_ref().map(BrainScore::command);
    let suites = [
        (Some(python.bundles.command()), "", "tests/python"),
        (Some(python.client.command()), setup::CLIENT_FOLDER, "tests"),
        (brain_score, setup::CLIENT_FOLDER, "tests/brainscore"),
    ];
    let mut failed = None;
    for (command, folder, tests) in suites {
        let Some(mut command) = command else {
            report::line(&without_brain_score());
            continue;
        };
        let folder = workspace::root().join(folder);
        report::line(&format!("Python tests ({})", folder.join(tests).display()));
        let status = command
            .args(["-m", "pytest", "-p", "no:cacheprovider", tests])
            .current_dir(folder)
            .env(PROGRAMS_VARIABLE, programs)
            .stdin(Stdio::null())
            .status()
            .context("can't run pytest")?;
        if !status.success() {
            failed.get_or_insert(exit_code(status));
        }
    }
    Ok(failed.unwrap_or(ExitCode::SUCCESS))
}

fn without_brain_score() -> String {
    let (major, minor) = setup::BRAIN_SCORE_PYTHON;
    format!(
        "left out: the tests with Brain-Score (clients/python/tests/brainscore), which is made for Python {major}.{minor}: \
         no python{major}.{minor} found"
    )
}

/// A program that was killed by a signal has no code of its own.
fn exit_code(status: ExitStatus) -> ExitCode {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
