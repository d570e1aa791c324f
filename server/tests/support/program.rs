//! The real `server` program.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

/// A running program; killed when it is dropped.
pub struct Program {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

/// The program on free ports, to which tests add arguments.
pub fn command(repository: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    let ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
    command
        .arg("--models")
        .arg(repository)
        .args(ports)
        .args(["--execution-provider", "cpu"]);
    command.env("RUST_LOG", "info");
    command
}

/// Runs a program that is expected to end by itself.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// The last line of the standard error of a program that failed with exit code 1, which tells why.
pub fn failure(command: &mut Command) -> String {
    let output = output(command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    let line = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{stderr}");
    line
}

impl Program {
    /// Starts a program.
    pub fn start(command: &mut Command) -> Self {
        let piped = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        Self {
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            stderr: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
        }
    }

    /// The next line of standard output; fails with the log if there is none.
    pub fn line(&mut self) -> String {
        match self.stdout.next() {
            Some(line) => line.unwrap(),
            None => panic!(
                "the program ended: {:?}",
                self.stderr.by_ref().collect::<Vec<_>>()
            ),
        }
    }

    /// The address at the end of the next line of standard output, which must start with `start`.
    pub fn address(&mut self, start: &str) -> String {
        let line = self.line();
        line.strip_prefix(start)
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    }

    /// Reads the log up to a line that contains `text`, and returns it.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let found = self
            .stderr
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("the log has no line with `{text}`"))
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; the exit code and the rest of standard output.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let log: Vec<_> = self.stderr.by_ref().map(Result::unwrap).collect();
        let status = self.child.wait().unwrap();
        let rest = self.stdout.by_ref().map(Result::unwrap).collect();
        assert!(status.code().is_some(), "{status}: {log:?}");
        (status.code(), rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail where the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
