//! What waits for a network: how much, how long, with whom.

use std::time::Duration;

use tonic::Code;

use crate::support::png;
use crate::support::running::Running;
use crate::{FULL, assert_message, classify, request, send, waiting};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.queue_length = 3;
    let running = Running::start_config(config).await;
    let image = png(4, 4, &[1; 16]);
    let mut client = running.client().await;
    let mut connections: Vec<_> = (0..3).map(|_| send(&running.url(""), &image)).collect();
    running.wait_for_waiting(3).await;

    let (status, retry_after, body) = classify(&running, &image);
    assert_eq!(status, 429, "{body}");
    assert_eq!(retry_after.as_deref(), Some("1"));
    assert_eq!(body["error"]["code"], "RESOURCE_EXHAUSTED");
    assert_message(&body, "3 requests wait");

    // Another depth has a queue of its own; the same depth is full for gRPC, too.
    let other = client.get_activations(request(FULL)).await;
    other.unwrap();
    let mut same = request(1);
    same.layers = vec!["fc".into()];
    let status = client.get_activations(same).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");

    // A client that leaves makes room, at once.
    connections.pop();
    running.wait_for_waiting(2).await;
    connections.push(send(&running.url(""), &image));
    running.wait_for_waiting(3).await;
    drop(connections);
    running.wait_for_waiting(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_one_is_accepted_behind_those_who_have_waited_too_long() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.scheduling.maximum_wait = Duration::from_millis(100);
    // `Retry-After` is the time for half of the queue, which is a second for a short one on a slow machine too.
    config.limits.queue_length = 2;
    let running = Running::start_config(config).await;
    let image = png(4, 4, &[1; 16]);
    let first = send(&running.url(""), &image);
    running.wait_for_waiting(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, retry_after, body) = classify(&running, &image);
    assert_eq!((status, retry_after.as_deref()), (429, Some("1")), "{body}");
    assert_message(&body, "a request waits 100 ms");
    drop(first);
    running.wait_for_waiting(0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_both_protocols_share_a_batch() {
    let repository = tempfile::tempdir().unwrap();
    let running = Running::start_config(waiting(repository.path())).await;
    let mut client = running.client().await;
    let mut almost_full = request(FULL - 1);
    almost_full.layers = vec!["fc".into()];
    let call = tokio::spawn(async move { client.get_activations(almost_full).await });
    running.wait_for_waiting(FULL - 1).await;
    // The last image makes the batch full, and both are answered.
    let (status, _, body) = classify(&running, &png(4, 4, &[1; 16]));
    assert_eq!(status, 200, "{body}");
    call.await.unwrap().unwrap();
    running.stop().await;
}
