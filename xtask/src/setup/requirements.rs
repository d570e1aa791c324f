//! What the machine has to offer before anything is downloaded.

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
    // The compiler that the build of libtorch's bindings takes, and no other.
    let named = std::env::var("CXX").ok().filter(|name| !name.trim().is_empty());
    match named {
        Some(compiler) if !runs(&compiler) => {
            bail!("the C++ compiler that $CXX names, {compiler:?}, doesn't run; libtorch's bindings need one")
        }
        None if !runs("c++") => bail!(
            "no C++ compiler found (c++), which libtorch's bindings need; install one, on Debian and Ubuntu with \
             `apt-get install g++`, or let $CXX name one"
        ),
        _ => Ok(()),
    }
}

/// Whether a compiler, with arguments perhaps (`ccache g++`), says its version.
fn runs(compiler: &str) -> bool {
    let mut words = compiler.split_whitespace();
    words.next().is_some_and(|program| {
        Command::new(program)
            .args(words)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn a_compiler_is_what_says_its_version() {
        assert!(runs("cargo"));
        assert!(runs("env cargo"));
        assert!(!runs("false"));
        assert!(!runs("no-such-compiler"));
        assert!(!runs(" "));
    }
}
