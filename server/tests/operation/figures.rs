//! Figures for Prometheus.

use std::time::Duration;

use proto::ventral::v1::GetModelRequest;
use server::{Limits, RepositoryOptions};
use tonic::{Code, Request};

use crate::IMAGE;
use crate::support::bundle::Bundle;
use crate::support::raw_grpc;
use crate::support::running::{Running, config};
use crate::support::{http_client, png};

/// The value of a line of figures that begins with `start`; 0 where there is none.
fn figure(running: &Running, start: &str) -> f64 {
    let mut response = http_client().get(running.url("/metrics")).call().unwrap();
    assert_eq!(response.status(), 200);
    let text = response.body_mut().read_to_string().unwrap();
    assert!(text.ends_with("# EOF\n"));
    let line = text.lines().find(|line| line.starts_with(start));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Waits until a figure is at least so large: a request is counted once its answer is written, which is when its client has
/// it, or a little later.
async fn wait_for(running: &Running, line: &str, least: f64) {
    let mut found = figure(running, line);
    for _ in 0..6000 {
        if found >= least {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        found = figure(running, line);
    }
    assert!(found >= least, "{line} is {found}");
}

fn get(model: &str) -> GetModelRequest {
    GetModelRequest {
        model: model.into(),
        version: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_both_protocols_are_counted() {
    // A name of its own: the figures are the process's, and other tests run in it.
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "counted", 1);
    let running = Running::start(repository.path()).await;
    let image = png(4, 4, &IMAGE);
    for _ in 0..3 {
        let url = running.url("/v1/models/counted/classify");
        let response = http_client()
            .post(url)
            .header("Content-Type", "image/png")
            .send(&image[..]);
        assert_eq!(response.unwrap().status(), 200);
    }
    let mut client = running.client().await;
    client.get_model(get("counted")).await.unwrap();
    client.get_model(get("nothing")).await.unwrap_err();
    let method = r#"method="POST /v1/models/{model}/classify""#;
    for (line, least) in [
        (format!("ventral_requests_total{{protocol=\"http\",{method},model=\"counted\",status=\"200\"}}"), 3.0),
        (
            "ventral_requests_total{protocol=\"grpc\",method=\"/ventral.v1.Ventral/GetModel\",model=\"counted\",status=\"OK\"}"
                .into(),
            1.0,
        ),
        (
            "ventral_requests_total{protocol=\"grpc\",method=\"/ventral.v1.Ventral/GetModel\",model=\"\",status=\"NOT_FOUND\"}"
                .into(),
            1.0,
        ),
        (format!("ventral_request_duration_seconds_count{{protocol=\"http\",{method}}}"), 3.0),
        ("ventral_stage_duration_seconds_count{model=\"counted\",stage=\"decode\"}".into(), 3.0),
        ("ventral_stage_duration_seconds_count{model=\"counted\",stage=\"queue\"}".into(), 3.0),
        ("ventral_stage_duration_seconds_count{model=\"counted\",stage=\"compute\"}".into(), 3.0),
        ("ventral_stage_duration_seconds_count{model=\"counted\",stage=\"reduce\"}".into(), 3.0),
        ("ventral_stage_duration_seconds_count{model=\"counted\",stage=\"serialise\"}".into(), 4.0),
        ("ventral_batch_size_count{model=\"counted\"}".into(), 1.0),
        ("ventral_model_memory_bytes{model=\"counted\",version=\"1\"}".into(), 100.0),
        ("ventral_model_load_time_seconds{model=\"counted\",version=\"1\"}".into(), 0.0),
        ("ventral_received_bytes_total{protocol=\"http\"}".into(), 3.0 * image.len() as f64),
        ("ventral_sent_bytes_total{protocol=\"grpc\"}".into(), 100.0),
        ("process_resident_memory_bytes".into(), 1e6),
    ] {
        wait_for(&running, &line, least).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_its_model_loaded_is_counted_as_the_model_s() {
    let repository = tempfile::tempdir().unwrap();
    for model in ["at_first", "counted_later"] {
        let mut bundle = Bundle::new();
        bundle.data.resize(2 << 20, 0);
        bundle.write(repository.path(), model, 1);
    }
    let options = RepositoryOptions {
        // There is room for one of them.
        memory_limit: Some(3 << 20),
        ..RepositoryOptions::default()
    };
    let running = Running::start_keeping(repository.path(), options).await;
    let mut client = running.client().await;
    client.get_model(get("counted_later")).await.unwrap();
    let line = "ventral_requests_total{protocol=\"grpc\",method=\"/ventral.v1.Ventral/GetModel\",\
                model=\"counted_later\",status=\"OK\"}";
    wait_for(&running, line, 1.0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_clients_invent_are_no_labels_even_when_the_server_is_busy() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "busy", 1);
    let mut config = config(repository.path(), Limits::default());
    config.limits.concurrent_requests = 0;
    let running = Running::start_config(config).await;
    for path in ["/invented.Service/Method", "/ventral.v1.Ventral/GetModel"] {
        let status = raw_grpc::call(running.grpc_url(), path, Request::new(Vec::new().into())).await;
        assert_eq!(status.unwrap_err().code(), Code::ResourceExhausted);
    }
    let known = "ventral_requests_total{protocol=\"grpc\",method=\"/ventral.v1.Ventral/GetModel\",model=\"\",\
                 status=\"RESOURCE_EXHAUSTED\"}";
    wait_for(&running, known, 1.0).await;
    let mut response = http_client().get(running.url("/metrics")).call().unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    assert!(!text.contains("invented"), "{text}");
    running.stop().await;
}
