//! Running a virtual environment's pip.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::python::Environment;
use super::watch::watch;

/// Runs pip with the arguments that `arguments` adds, showing meanwhile how many bytes `folders` and `temporary` hold.
/// pip's own configuration decides where packages come from. Its temporary files, in the folder `temporary`, hold whole
/// wheels, which /tmp often hasn't room for. `what` is what it fetches, in words.
pub(super) fn run(
    python: &Environment,
    what: &str,
    arguments: impl FnOnce(&mut Command),
    temporary: &Path,
    folders: &[&Path],
) -> Result<()> {
    let mut pip = python.command();
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    arguments(&mut pip);
    pip.env("TMPDIR", temporary);
    let folders: Vec<_> = folders.iter().copied().chain([temporary]).collect();
    let output = watch(pip, "fetched", &folders).context("can't run pip")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(explain(&String::from_utf8_lossy(&output.stderr), what));
}

/// One line on why pip failed.
fn explain(said: &str, what: &str) -> String {
    const OFFLINE: &[&str] = &[
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeoutError",
        "ProxyError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "Connection refused",
    ];
    if OFFLINE.iter().any(|sign| said.contains(sign)) {
        return format!(
            "no network: pip can't reach its package index to fetch {what}; run this again when it can, or let \
             PIP_FIND_LINKS name a folder with the wheels"
        );
    }
    let mut errors = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ERROR: "));
    let reason = errors
        .next()
        .or_else(|| said.trim().lines().last())
        .unwrap_or("no message");
    // An index that can't be asked looks to pip like one that holds nothing.
    let cause = if reason.contains("(from versions: none)") {
        "; is there a network, and does pip's package index hold it?"
    } else {
        ""
    };
    format!("pip can't fetch {what}: {reason}{cause}")
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn a_missing_network_is_named_as_such() {
        let said = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
            'NewConnectionError('<pip._vendor…>: Failed to establish a new connection: [Errno -2]')': /simple/torch/\n\
            ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n";
        let explanation = explain(said, "PyTorch");
        assert!(
            explanation.starts_with("no network: ") && explanation.contains("to fetch PyTorch;"),
            "{explanation}"
        );
        assert!(!explanation.contains('\n'));
    }

    #[test]
    fn otherwise_pips_own_words_are_passed_on() {
        let said =
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n";
        assert_eq!(
            explain(said, "PyTorch"),
            "pip can't fetch PyTorch: Could not install packages due to an OSError: [Errno 28] No space left on device"
        );
        let said = "ERROR: Could not find a version that satisfies torch==2.13.0 (from versions: none)\n";
        assert!(
            explain(said, "PyTorch").ends_with("is there a network, and does pip's package index hold it?")
        );
        assert_eq!(explain("", "PyTorch"), "pip can't fetch PyTorch: no message");
    }
}
