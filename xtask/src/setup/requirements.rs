//! What the machine has to offer before anything is downloaded.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// Fails with one line that says what to install.
pub(super) fn check() -> Result<()> {
    if !(cfg!(target_os = "linux") && cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))) {
        bail!(
            "the libraries' wheels fit Linux on x86-64 or aarch64, not {} on {}",
            std::env::consts::OS,
            std::env::consts::ARCH
        );
    }
    if !has_cpp_compiler() {
        bail!(
            "no C++ compiler found (c++, g++ or clang++, or the one in $CXX); libtorch's bindings need one: install \
             one, on Debian and Ubuntu with `apt-get install g++`"
        );
    }
    Ok(())
}

fn has_cpp_compiler() -> bool {
    let named = std::env::var_os("CXX").filter(|name| !name.is_empty());
    let candidates = named.map_or_else(
        || ["c++", "g++", "clang++"].map(OsString::from).to_vec(),
        |name| vec![name],
    );
    candidates.iter().any(|compiler| {
        // $CXX may hold arguments too: `ccache g++`.
        let compiler = compiler.to_string_lossy();
        let mut words = compiler.split_whitespace();
        let Some(program) = words.next() else { return false };
        Command::new(program)
            .args(words)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}
