//! A log that can't be written.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::program::command;
use crate::{classify, repository};

/// The program with its log somewhere, and the URL of its HTTP port; killed when it is dropped.
struct Logging {
    child: Child,
    http: String,
}

impl Logging {
    fn start(repository: &Path, log: Stdio) -> Self {
        let mut command = command(repository);
        command.env("RUST_LOG", "debug").args(["--log-format", "json"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // The rest is read too, or the program could not write it.
        output.read_line(&mut String::new()).unwrap();
        let http = line.trim().strip_prefix("http listening on ").unwrap().to_owned();
        Self { child, http }
    }

    fn end(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let signalled = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(signalled.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_full_disk_for_the_log_does_not_stop_serving() {
    let repository = repository();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let logging = Logging::start(repository.path(), full.into());
    for _ in 0..50 {
        assert_eq!(classify(&logging.http, &[]).status(), 200);
    }
    assert_eq!(logging.end(), Some(0));
}

#[test]
fn a_log_that_no_one_reads_does_not_stop_serving() {
    let repository = repository();
    let mut logging = Logging::start(repository.path(), Stdio::piped());
    let unread = logging.child.stderr.take().unwrap();
    // Several times what a pipe holds.
    let long = "x".repeat(120);
    for _ in 0..1000 {
        assert_eq!(classify(&logging.http, &[("x-request-id", &long)]).status(), 200);
    }
    assert_eq!(logging.end(), Some(0));
    drop(unread);
}
