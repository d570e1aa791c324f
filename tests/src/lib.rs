//! End-to-end tests: what a user does with the programs, done by tests. This library is what they share: it builds and
//! runs the [`programs`], starts a [`server`], talks to it over the [`wire`], and makes small sets of real [`images`].
//!
//! Nothing here links a program's code: the tests see files, exit codes, addresses and answers, as users do.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

pub mod images;
pub mod programs;
pub mod server;
pub mod tensors;
pub mod wire;
