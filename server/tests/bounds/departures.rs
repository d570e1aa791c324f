//! Clients that leave, whose requests are forgotten.

use h2::Reason;

use crate::support::png;
use crate::support::running::Running;
use crate::{connect, framed, head, request, send, waiting};

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_by_the_hundred_are_forgotten() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.scheduling.maximum_batch = 10_000.try_into().unwrap();
    let running = Running::start_config(config).await;
    let image = png(4, 4, &[1; 16]);
    for _ in 0..3 {
        let connections: Vec<_> = (0..100).map(|_| send(&running.url(""), &image)).collect();
        let mut calls = tokio::task::JoinSet::new();
        let client = running.client().await;
        for _ in 0..100 {
            let mut client = client.clone();
            calls.spawn(async move { client.get_activations(request(2)).await });
        }
        running.wait_for_waiting(100 + 200).await;
        drop(connections);
        running.wait_for_waiting(200).await;
        drop(calls);
        running.wait_for_waiting(0).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_is_taken_back_and_its_connection_goes_on() {
    let repository = tempfile::tempdir().unwrap();
    let running = Running::start_config(waiting(repository.path())).await;
    let url = running.grpc_url();
    let (mut client, connection) = connect(&url, &h2::client::Builder::new()).await;
    let mut calls = Vec::new();
    for images in [1, 2, 4] {
        let (answer, mut body) = client.send_request(head(&url).body(()).unwrap(), false).unwrap();
        body.send_data(framed(&request(images)), true).unwrap();
        calls.push((answer, body));
    }
    running.wait_for_waiting(7).await;
    calls[1].1.send_reset(Reason::CANCEL);
    running.wait_for_waiting(5).await;
    // Nor is a call kept that was cancelled before all of its message was there.
    let (_, mut body) = client.send_request(head(&url).body(()).unwrap(), false).unwrap();
    body.send_data(framed(&request(8)).slice(..100), false).unwrap();
    body.send_reset(Reason::CANCEL);
    let (answer, mut body) = client.send_request(head(&url).body(()).unwrap(), false).unwrap();
    body.send_data(framed(&request(16)), true).unwrap();
    running.wait_for_waiting(21).await;
    drop((calls, answer));
    connection.abort();
    running.wait_for_waiting(0).await;
    running.stop().await;
}
