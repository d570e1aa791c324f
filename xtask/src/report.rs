//! What the chores say on the terminal.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one module that writes to the terminal"
)]

use std::io::{IsTerminal, Write};

/// One line about what happens now.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// The heading of a step of a longer chore.
pub(crate) fn step(text: &str) {
    println!("\n==> {text}");
}

/// An error and its causes, a line each.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
}

/// A line that is rewritten while something goes on; silent where nobody watches.
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Nothing shown so far.
    pub(crate) fn new() -> Self {
        Self { shown: false }
    }

    /// Replaces the line.
    pub(crate) fn update(&mut self, text: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
