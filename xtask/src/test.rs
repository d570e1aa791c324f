//! `cargo xtask test`: set-up, then every test of the workspace.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{report, setup, workspace};

/// Sets up the native libraries where that isn't done and runs all tests.
pub(crate) fn run() -> Result<()> {
    report::line(
        "Set-up downloads about 0.6 GB of Python wheels (PyTorch, ONNX Runtime) where that hasn't been done; the tests \
         download nothing more.",
    );
    setup::set_up_as_before()?;
    report::step("cargo test --workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--workspace"])
        .current_dir(workspace::root())
        .status()
        .context("can't run cargo test")?;
    if !status.success() {
        bail!("the tests failed ({status})");
    }
    Ok(())
}
