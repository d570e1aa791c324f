//! How many requests there are at a time, and how much memory they may take together.

use std::io::Write as _;
use std::time::Duration;

use h2::client;
use proto::inference::ModelInferRequest;
use proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::ventral::v1::GetModelRequest;
use proto::ventral::v1::ventral_client::VentralClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::running::Running;
use crate::support::{http_client, png};
use crate::{FULL, assert_message, classify, connect, framed, head, request, send, waiting};

/// Asks for the model until there is a place for the call: places are given back a moment after the queue's.
async fn wait_for_a_place(client: &mut VentralClient<Channel>) {
    let model = GetModelRequest {
        model: "hand".into(),
        ..Default::default()
    };
    for attempt in 0.. {
        match client.get_model(model.clone()).await {
            Ok(_) => return,
            Err(status) => assert!(attempt < 6000, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_are_worked_on_than_allowed() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.concurrent_requests = 2;
    let running = Running::start_config(config).await;
    let image = png(4, 4, &[1; 16]);
    let mut client = running.client().await;
    let connections = [0; 2].map(|_| send(&running.url(""), &image));
    running.wait_for_waiting(2).await;

    let (status, retry_after, body) = classify(&running, &image);
    assert_eq!((status, retry_after.as_deref()), (429, Some("1")), "{body}");
    assert_message(&body, "works on 2 requests");
    let model = GetModelRequest {
        model: "hand".into(),
        ..Default::default()
    };
    let status = client.get_model(model).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let health = http_client().get(running.url("/healthz")).call().unwrap();
    assert_eq!(health.status(), 200, "health is known all the same");

    drop(connections);
    running.wait_for_waiting(0).await;
    wait_for_a_place(&mut client).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_memory_is_promised_than_there_is() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    // One image: 64 bytes of input, 128 of `relu`.
    config.limits.memory_bytes = 4096;
    let running = Running::start_config(config).await;
    let mut client = running.client().await;
    let mut other = client.clone();
    let first = tokio::spawn(async move { other.get_activations(request(15)).await });
    running.wait_for_waiting(15).await;
    let status = client.get_activations(request(15)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("more than 4096 bytes"), "{status}");
    assert!(status.metadata().get("retry-after").is_some());
    first.abort();
    running.wait_for_waiting(0).await;
    running.stop().await;
}

/// Bytes that are no image.
static NONSENSE: [u8; 40_000] = [7; 40_000];

/// Begins a request that never ends, until another one is refused for it. It comes after a pause, or it might be the one
/// that takes the memory.
async fn refused_beside<T, F: Future<Output = T>>(running: &Running, begin: impl Fn() -> F) -> T {
    let mut attempt = 0;
    loop {
        let begun = begin().await;
        attempt += 1;
        tokio::time::sleep(Duration::from_millis(20 * attempt)).await;
        let (status, retry_after, body) = classify(running, &NONSENSE);
        if status == 429 {
            assert!(retry_after.is_some());
            return begun;
        }
        assert_eq!(status, 400, "{body}");
        assert!(attempt < 100, "everything was accepted");
    }
}

/// Waits until there is memory again.
async fn wait_for_memory(running: &Running) {
    for attempt in 0.. {
        let (status, _, body) = classify(running, &NONSENSE);
        if status == 400 {
            return;
        }
        assert!(attempt < 6000, "{status}: {body}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_of_requests_is_counted() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.memory_bytes = 64 << 10;
    let running = Running::start_config(config).await;
    let (status, _, body) = classify(&running, &NONSENSE.repeat(2));
    assert_eq!(status, 413, "{body}");
    assert_message(&body, "limits.memory_bytes");

    // There is no room for the same a second time, before the first is whole.
    let address = running.url("");
    let half = refused_beside(&running, async || {
        let mut half = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
        let head = "POST /v1/models/hand/classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n";
        half.write_all(&[head.as_bytes(), b"Content-Length: 50000\r\n\r\n", &NONSENSE].concat())
            .unwrap();
        half
    })
    .await;
    drop(half);
    wait_for_memory(&running).await;

    let url = running.grpc_url();
    let half = refused_beside(&running, async || {
        let (mut client, connection) = connect(&url, &client::Builder::new()).await;
        let (answer, mut body) = client.send_request(head(&url).body(()).unwrap(), false).unwrap();
        body.send_data(framed(&request(1000)).slice(..NONSENSE.len()), false)
            .unwrap();
        (answer, body, connection)
    })
    .await;
    half.2.abort();
    drop(half);
    wait_for_memory(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_left_unread_gives_its_place_back() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.concurrent_requests = 1;
    config.limits.unread = Duration::from_millis(100);
    let running = Running::start_config(config).await;
    let url = running.grpc_url();
    // A client that takes nothing of an answer but its head.
    let (mut client, connection) = connect(&url, client::Builder::new().initial_window_size(0)).await;
    let (answer, mut body) = client.send_request(head(&url).body(()).unwrap(), false).unwrap();
    body.send_data(framed(&request(FULL)), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);

    wait_for_a_place(&mut running.client().await).await;
    drop(answer);
    connection.abort();
    running.stop().await;
}

/// A request for a layer of one image.
fn infer(layer: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "hand".into(),
        inputs: vec![InferInputTensor {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1, 4, 4],
            ..Default::default()
        }],
        outputs: vec![InferRequestedOutputTensor {
            name: layer.into(),
            ..Default::default()
        }],
        raw_input_contents: vec![vec![0; 64].into()],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_left_unread_keeps_no_places_in_the_queue() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.queue_length = 4;
    let running = Running::start_config(config).await;
    let url = running.grpc_url();
    // A client that takes one byte of the first answer, which is an error.
    let (mut client, connection) = connect(&url, client::Builder::new().initial_window_size(1)).await;
    let head = http::Request::post(format!("{url}/inference.GRPCInferenceService/ModelStreamInfer"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (answer, mut body) = client.send_request(head.body(()).unwrap(), false).unwrap();
    let requests = ["layer9", "relu", "relu", "relu"].map(|layer| framed(&infer(layer)));
    body.send_data(requests.concat().into(), true).unwrap();
    let answer = answer.await.unwrap();
    running.wait_for_waiting(3).await;

    // They are computed with others, and make room, though their answers are not read.
    let mut other = running.client().await;
    other.get_activations(request(FULL - 3)).await.unwrap();
    let mut waiting = running.client().await;
    let waiting = tokio::spawn(async move { waiting.get_activations(request(1)).await });
    running.wait_for_waiting(1).await;
    for attempt in 0.. {
        match other.get_activations(request(FULL - 1)).await {
            Ok(_) => break,
            Err(status) => assert!(attempt < 6000, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.await.unwrap().unwrap();
    drop(answer);
    connection.abort();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_never_fit_is_not_told_to_come_again() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.memory_bytes = 4096;
    let running = Running::start_config(config).await;
    let mut client = running.client().await;
    let status = client.get_activations(request(FULL)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("`limits.memory_bytes`"), "{status}");
    assert!(status.metadata().get("retry-after").is_none(), "{status:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_warmed_up_when_all_memory_is_taken() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.memory_bytes = 1;
    config.limits.queue_length = 0;
    let running = Running::start_config(config).await;
    let index = running.state().repository().unwrap().index();
    assert_eq!(index[0].reason, "");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_past_the_limit_exhaust_a_resource_in_both_directions() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.message_bytes = 4096;
    let running = Running::start_config(config).await;
    let mut client = running.client().await;
    let status = client.get_activations(request(64)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("4096"), "{status}");
    let status = client.get_activations(request(FULL)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("4096"), "{status}");
    running.stop().await;
}
