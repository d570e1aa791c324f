//! What bounds requests.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod bombs;
mod deadlines;
mod departures;
mod places;
mod queue;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use prost::Message;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::{DataType, GetActivationsRequest, Tensor};
use serde_json::Value;
use server::{Config, Limits};
use support::bundle::Bundle;
use support::http_client;
use support::running::{Running, config};
use tokio::task::JoinHandle;

/// Requests that are full of so many images are computed at once, all others wait for company.
const FULL: usize = 50;

/// A server on which what is sent waits: no batch is computed before it is full.
fn waiting(repository: &std::path::Path) -> Config {
    Bundle::new().write(repository, "hand", 1);
    let mut config = config(repository, Limits::default());
    config.scheduling.maximum_delay = Duration::from_secs(3600);
    config.scheduling.maximum_batch = FULL.try_into().unwrap();
    config
}

fn request(images: usize) -> GetActivationsRequest {
    GetActivationsRequest {
        model: "hand".into(),
        layers: vec!["relu".into()],
        stimuli: Some(Stimuli::Tensor(Tensor {
            shape: vec![images as u64, 1, 4, 4],
            data_type: DataType::Float32 as i32,
            data: vec![0; images * 64].into(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Sends the head and the body of a classification; the connection stays open.
fn send(address: &str, image: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "POST /v1/models/hand/classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n",
        image.len()
    )
    .unwrap();
    stream.write_all(image).unwrap();
    stream
}

/// Status, `Retry-After` and JSON of an answer.
fn classify(running: &Running, image: &[u8]) -> (u16, Option<String>, Value) {
    let url = running.url("/v1/models/hand/classify");
    let mut answer = http_client()
        .post(url)
        .header("Content-Type", "image/png")
        .send(image)
        .unwrap();
    let retry_after = answer
        .headers()
        .get("retry-after")
        .map(|value| value.to_str().unwrap().to_owned());
    let text = answer.body_mut().read_to_string().unwrap();
    (
        answer.status().as_u16(),
        retry_after,
        serde_json::from_str(&text).unwrap(),
    )
}

/// The beginning of an error's message.
fn assert_message(body: &Value, expected: &str) {
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains(expected), "{message}");
}

/// A call of `GetActivations` as HTTP/2 has it: a client of tonic's would watch the clock itself, and read what comes.
fn head(url: &str) -> http::request::Builder {
    http::Request::post(format!("{url}/ventral.v1.Ventral/GetActivations"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A connection to a server's gRPC port, and the task that keeps it. `builder` says how much the client takes unasked.
async fn connect(
    url: &str,
    builder: &client::Builder,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let connection = tokio::net::TcpStream::connect(url.trim_start_matches("http://"))
        .await
        .unwrap();
    let (client, connection) = builder.handshake(connection).await.unwrap();
    let connection = tokio::spawn(connection);
    (client.ready().await.unwrap(), connection)
}

/// A message with gRPC's prefix.
fn framed(request: &impl Message) -> Bytes {
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}
