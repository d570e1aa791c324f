//! What operators rely on.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod descriptions;
mod end;
mod figures;
mod health;
mod logs;
#[path = "../support/mod.rs"]
mod support;
mod traces;

use std::process::Command;

use support::bundle::Bundle;
use support::program::Program;
use support::{http_client, png};
use tonic::transport::Channel;

const IMAGE: [u8; 16] = [9; 16];

fn repository() -> tempfile::TempDir {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    repository
}

fn classify(http: &str, headers: &[(&str, &str)]) -> ureq::http::Response<ureq::Body> {
    let mut request = http_client().post(format!("{http}/v1/models/hand/classify"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .header("Content-Type", "image/png")
        .send(&png(4, 4, &IMAGE)[..])
        .unwrap()
}

async fn channel(url: &str) -> Channel {
    let endpoint = Channel::from_shared(url.to_owned()).unwrap();
    endpoint.connect().await.unwrap()
}

/// The program's ports, and the program.
fn start(command: &mut Command) -> (Program, String, String) {
    let mut program = Program::start(command);
    let http = program.address("http listening on ");
    let grpc = program.address("grpc listening on ");
    (program, http, grpc)
}
