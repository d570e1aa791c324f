//! The server, running on free ports.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::programs::program;

/// A running server; killed when it is dropped.
pub struct Server {
    process: Child,
    /// URL of the HTTP port.
    pub http: String,
    /// URL of the gRPC port.
    pub grpc: String,
}

impl Server {
    /// Serves a model repository on the CPU; returns once the server answers.
    pub fn start(repository: &Path) -> Self {
        let mut command = program("server");
        command.arg("--models").arg(repository);
        command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        command.args(["--execution-provider", "cpu"]);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = |start: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(start)
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned()
        };
        let (http, grpc) = (address("http listening on "), address("grpc listening on "));
        Self { process, http, grpc }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where the server has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
