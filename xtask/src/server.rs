//! A running server, which doesn't outlive the chore that started it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long the server may take to load the model.
const TO_START: Duration = Duration::from_secs(120);
/// How long it may take to finish what it has begun.
const TO_STOP: Duration = Duration::from_secs(30);

/// The server's process; killed when dropped.
pub(crate) struct Server {
    process: Child,
    log: PathBuf,
    /// URL of the HTTP port.
    pub(crate) http: String,
    /// URL of the gRPC port.
    pub(crate) grpc: String,
}

impl Server {
    /// Starts `program` on free ports and waits until it listens. Its log goes to the file `log`.
    pub(crate) fn start(program: &Path, repository: &Path, log: &Path) -> Result<Self> {
        Self::start_with(program, repository, log, &[])
    }

    /// The same, with more options.
    pub(crate) fn start_with(
        program: &Path,
        repository: &Path,
        log: &Path,
        options: &[&str],
    ) -> Result<Self> {
        let log_file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        let process = Command::new(program)
            .arg("--models")
            .arg(repository)
            .args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("can't run {}", program.display()))?;
        let mut server = Self {
            process,
            log: log.to_owned(),
            http: String::new(),
            grpc: String::new(),
        };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let output = self.process.stdout.take().context("the server has no output")?;
        let lines = lines_of(output);
        let deadline = Instant::now() + TO_START;
        while self.http.is_empty() || self.grpc.is_empty() {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.note_address(&line),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the server doesn't listen after {} s; {}",
                        TO_START.as_secs(),
                        self.last_words()
                    );
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.process.wait().context("can't wait for the server")?;
                    bail!(
                        "the server ended ({status}) before it listened; {}",
                        self.last_words()
                    );
                }
            }
        }
        Ok(())
    }

    fn note_address(&mut self, line: &str) {
        if let Some(url) = line.strip_prefix("http listening on ") {
            self.http = url.to_owned();
        } else if let Some(url) = line.strip_prefix("grpc listening on ") {
            self.grpc = url.to_owned();
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks the server to stop and waits for it.
    pub(crate) fn stop(mut self) -> Result<()> {
        let asked = Command::new("sh")
            .args(["-c", "kill -TERM \"$1\"", "sh", &self.process.id().to_string()])
            .status()
            .context("can't run sh")?;
        if !asked.success() {
            bail!("the server is gone already; {}", self.last_words());
        }
        match self.wait(TO_STOP)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the server stopped with {status}; {}", self.last_words()),
            None => bail!(
                "the server doesn't stop within {} s; {}",
                TO_STOP.as_secs(),
                self.last_words()
            ),
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().context("can't wait for the server")? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(None)
    }

    /// Where the log is, and its last line.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.trim().lines().last().unwrap_or("nothing");
        format!("its log {} ends with: {last}", self.log.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails where the server has ended: then nothing is left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines of a program's output as they come. All are read, wanted or not: a full pipe would stop the program.
fn lines_of(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens any more once the addresses are known.
            let _ = sender.send(line);
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that is given the server's arguments and runs `script`.
    fn program(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Starts such a program, once it can be run: a program that another test starts inherits the file while it is still
    /// open for writing, and lets go of it a moment later.
    fn start(program: &Path, folder: &Path) -> Result<Server> {
        let mut pauses = 0..6000;
        loop {
            let started = Server::start(program, folder, &folder.join("log"));
            let cause = started
                .as_ref()
                .err()
                .and_then(|error| error.downcast_ref::<io::Error>());
            let is_busy = cause.is_some_and(|error| error.kind() == io::ErrorKind::ExecutableFileBusy);
            if !is_busy || pauses.next().is_none() {
                return started;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_server_is_started_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        // The trap comes first, as in the server: who listens can already be asked to stop.
        let script = "trap 'exit 0' TERM\necho 'http listening on http://127.0.0.1:1'\n\
            echo 'grpc listening on http://127.0.0.1:2'\nwhile :; do sleep 0.05; done";
        let program = program(folder.path(), script);
        let server = start(&program, folder.path()).unwrap();
        assert_eq!(server.http, "http://127.0.0.1:1");
        assert_eq!(server.grpc, "http://127.0.0.1:2");
        server.stop().unwrap();
    }

    #[test]
    fn a_server_that_ends_early_leaves_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let program = program(folder.path(), "echo 'error: the port is taken' >&2\nexit 3");
        let started = start(&program, folder.path());
        let message = started.err().unwrap().to_string();
        assert!(message.contains("exit status: 3"), "{message}");
        assert!(message.ends_with("the port is taken"), "{message}");
    }
}
