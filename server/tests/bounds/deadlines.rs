//! How long requests may take.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::stream_activations_request::Part;
use proto::ventral::v1::{StimulusGroup, StreamActivationsRequest, StreamStart, stimulus_group};
use tonic::{Code, Request};

use crate::support::png;
use crate::support::running::Running;
use crate::{FULL, classify, connect, framed, head, request, send, waiting};

#[tokio::test(flavor = "multi_thread")]
async fn requests_end_at_their_deadlines() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    config.limits.time = Duration::from_secs(2);
    let running = Running::start_config(config).await;
    let image = png(4, 4, &[1; 16]);

    // The server's own limit, for what waits and for what isn't sent.
    let (status, _, body) = classify(&running, &image);
    assert_eq!(
        (status, &body["error"]["code"]),
        (504, &"DEADLINE_EXCEEDED".into()),
        "{body}"
    );
    let mut slow = send(&running.url(""), &image[..20]);
    let _unfinished = {
        let mut unfinished = TcpStream::connect(running.url("").trim_start_matches("http://")).unwrap();
        write!(
            unfinished,
            "POST /v1/models/hand/classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n\
             Content-Length: 1000\r\n\r\nsome"
        )
        .unwrap();
        let mut answer = [0; 12];
        unfinished.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 504");
        unfinished
    };
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    let status = running
        .client()
        .await
        .get_activations(request(1))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(running.waiting(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_s_deadline_is_kept() {
    let repository = tempfile::tempdir().unwrap();
    let config = waiting(repository.path());
    let running = Running::start_config(config).await;
    let url = running.grpc_url();
    let (mut client, connection) = connect(&url, &h2::client::Builder::new()).await;
    let late = head(&url).header("grpc-timeout", "300m").body(()).unwrap();
    let (answer, mut body) = client.send_request(late, false).unwrap();
    body.send_data(framed(&request(1)), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(
        answer.headers()["grpc-status"],
        (Code::DeadlineExceeded as i32).to_string()
    );
    assert_eq!(running.waiting(), 0);
    connection.abort();

    // A full batch in the same time is computed.
    let mut client = running.client().await;
    let mut full = Request::new(request(FULL));
    full.metadata_mut().insert("grpc-timeout", "60S".parse().unwrap());
    client.get_activations(full).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_whose_clients_say_nothing_end() {
    let repository = tempfile::tempdir().unwrap();
    let mut config = waiting(repository.path());
    // The first answer, for which a session is loaded, must come within it.
    config.limits.time = Duration::from_secs(8);
    let running = Running::start_config(config).await;
    let start = Part::Start(StreamStart {
        model: "hand".into(),
        layers: vec!["relu".into()],
        ..Default::default()
    });
    let Some(Stimuli::Tensor(tensor)) = request(FULL).stimuli else {
        unreachable!("these stimuli are a tensor");
    };
    let group = Part::Stimuli(StimulusGroup {
        stimuli: Some(stimulus_group::Stimuli::Tensor(tensor)),
        ..Default::default()
    });
    let parts = [start, group].map(|part| StreamActivationsRequest { part: Some(part) });
    let requests = stream::iter(parts).chain(stream::pending());
    let mut client = running.client().await;
    let mut answers = client.stream_activations(requests).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().activations.len(), 1);

    // Another, whose client says nothing in the same seconds.
    let mut client = GrpcInferenceServiceClient::connect(running.grpc_url())
        .await
        .unwrap();
    let others = client.model_stream_infer(stream::pending()).await;
    let mut others = others.unwrap().into_inner();
    for status in [
        answers.message().await.unwrap_err(),
        others.message().await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    }
    running.stop().await;
}
