//! Bundles from end to end: random networks are exported and verified against a plain implementation of their formula.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod inspect;
mod numbers;
mod reduced;
mod refusals;
mod structure;
mod support;
