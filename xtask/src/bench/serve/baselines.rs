//! The servers that ours is compared with: FastAPI under uvicorn, and LitServe.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::Environment;
use crate::workspace;

/// How long a server may take to start.
const TO_START: Duration = Duration::from_secs(120);

/// What ours is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Baseline {
    /// Under uvicorn, with uvloop and httptools; a process a core.
    FastApi,
    /// Batching, with fast queues; as many processes that answer as compute.
    LitServe,
}

/// A running server and all of its processes; killed when dropped.
pub(super) struct Running {
    process: Child,
    /// Where images are classified.
    pub(super) url: String,
}

impl Baseline {
    pub(super) const ALL: [Self; 2] = [Self::FastApi, Self::LitServe];

    /// As it stands in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FastApi => "FastAPI",
            Self::LitServe => "LitServe",
        }
    }

    /// As it stands in the names of metrics.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::FastApi => "fastapi",
            Self::LitServe => "litserve",
        }
    }

    /// What tells the generator in which form the server takes images, where it isn't the image as it is.
    pub(super) fn form(self) -> &'static [&'static str] {
        match self {
            Self::FastApi => &[],
            Self::LitServe => &["--json"],
        }
    }

    /// Starts the server on a free port with `workers` processes, and waits until it answers.
    pub(super) fn start(
        self,
        python: &Environment,
        bundle: &Path,
        workers: usize,
        log: &Path,
    ) -> Result<Running> {
        let port = free_port()?;
        let (port_text, workers) = (port.to_string(), workers.to_string());
        let mut command = python.command();
        match self {
            Self::FastApi => command
                .args(["-m", "uvicorn", "fastapi_server:app", "--host", "127.0.0.1"])
                .args(["--port", &port_text, "--workers", &workers])
                .args(["--no-access-log", "--log-level", "warning"])
                .env("BUNDLE", bundle),
            Self::LitServe => command
                .args(["litserve_server.py", "--port", &port_text, "--workers", &workers])
                .arg("--bundle")
                .arg(bundle),
        };
        let log_file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        let process = command
            .current_dir(scripts())
            // Python's own compiled files don't belong into the checkout.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            // Its workers are killed with it.
            .process_group(0)
            .spawn()
            .context("can't run Python")?;
        let mut running = Running {
            process,
            url: format!("http://127.0.0.1:{port}/classify"),
        };
        running.wait_until_it_answers(self, port, log)?;
        Ok(running)
    }
}

impl Running {
    fn wait_until_it_answers(&mut self, baseline: Baseline, port: u16, log: &Path) -> Result<()> {
        let deadline = Instant::now() + TO_START;
        while !is_healthy(port) {
            let ended = self.process.try_wait().context("can't wait for Python")?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("{} doesn't start; its log is {}", baseline.name(), log.display());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        // Fails where all of them have ended: then nothing is left to do.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.process.wait();
    }
}

fn is_healthy(port: u16) -> bool {
    use std::io::{Read as _, Write as _};

    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let request = "GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen on any port")?;
    Ok(listener.local_addr()?.port())
}

fn scripts() -> PathBuf {
    workspace::root().join("xtask/src/bench/serve/python")
}
