//! Health by gRPC and HTTP, before, while and after a server serves.

use std::sync::Arc;

use proto::ventral::v1::ListModelsRequest;
use proto::ventral::v1::ventral_client::VentralClient;
use server::front::Front;
use server::front::readiness::Phase;
use server::inference::Inference;
use server::onnx_runtime::OnnxRuntime;
use server::security::access::Access;
use server::state::State;
use server::{Limits, ProviderChoice, Scheduling};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Streaming;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::http_client;
use crate::support::program::command;
use crate::{channel, classify, repository, start};

/// The next healths that a watch tells, up to the one that is waited for: it follows the models' loading, and may lag behind
/// the address that is printed then.
async fn wait_for(watch: &mut Streaming<HealthCheckResponse>, status: ServingStatus) {
    while watch.message().await.unwrap().unwrap().status() != status {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_says_so_and_serves_on() {
    let repository = repository();
    // Long enough to last until the second signal, which ends it.
    let (mut program, http, grpc) = start(command(repository.path()).args(["--drain-delay", "10min"]));
    let mut health = HealthClient::new(channel(&grpc).await);
    let mut client = VentralClient::connect(grpc).await.unwrap();
    let mut watched = Vec::new();
    for service in ["", "ventral.v1.Ventral", "inference.GRPCInferenceService"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let mut watch = health.watch(request.clone()).await.unwrap().into_inner();
        wait_for(&mut watch, ServingStatus::Serving).await;
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status(),
            ServingStatus::Serving
        );
        watched.push(watch);
    }
    let unknown = HealthCheckRequest {
        service: "unknown".into(),
    };
    assert_eq!(
        health.check(unknown).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    program.signal("TERM");
    for watch in &mut watched {
        wait_for(watch, ServingStatus::NotServing).await;
    }
    for (path, status) in [("/readyz", 503), ("/healthz", 200)] {
        let answer = http_client().get(format!("{http}{path}")).call().unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    assert_eq!(classify(&http, &[]).status(), 200);
    client.list_models(ListModelsRequest {}).await.unwrap();
    program.signal("TERM");
    program.wait_for_log("asked to stop again");
    assert_eq!(program.end().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_healthy_before_its_models_are_loaded() {
    let onnx_runtime = OnnxRuntime::start(Some(2), ProviderChoice::Cpu).unwrap();
    let limits = Limits::default();
    let inference = Inference::new(onnx_runtime, Handle::current(), 2, limits, Scheduling::default());
    let state = Arc::new(State::new(inference, limits));
    let front = Arc::new(Front::new(Access::new(None, true, false)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let front_too = Arc::clone(&front);
    let serving = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        server::grpc::serve(listener, state, front_too, None, stop).await
    });
    let mut health = HealthClient::new(channel(&url).await);
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut next = async || watch.message().await.unwrap().map(|answer| answer.status());
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    front.readiness.enter(Phase::Serving);
    assert_eq!(next().await, Some(ServingStatus::Serving));
    front.readiness.enter(Phase::Closed);
    while next().await.is_some() {}
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_watch_the_health_do_not_keep_the_program_from_ending() {
    let repository = repository();
    // Far longer than a test lasts: only an end by itself ends the program.
    let (program, _, grpc) = start(command(repository.path()).args(["--drain-timeout", "1440min"]));
    let mut health = HealthClient::new(channel(&grpc).await);
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    wait_for(&mut watch, ServingStatus::Serving).await;
    program.signal("TERM");
    while let Ok(Some(_)) = watch.message().await {}
    assert_eq!(program.end().0, Some(0));
}
