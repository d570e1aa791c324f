//! What a server says about itself and its answers: identifiers, heads, the page for people, reflection.

use std::time::Duration;

use proto::ventral::v1::ListModelsRequest;
use tonic::Request;

use crate::support::http_client;
use crate::support::running::Running;
use crate::{channel, classify, repository};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_carries_the_request_s_identifier() {
    let repository = repository();
    let running = Running::start(repository.path()).await;
    let id = |given: &str| {
        let response = classify(&running.url(""), &[("x-request-id", given)]);
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id("mine-1"), "mine-1");
    let made = id("not usable");
    assert!(!made.contains(' ') && made != id("not usable"), "{made}");
    let mut client = running.client().await;
    let mut request = Request::new(ListModelsRequest {});
    request
        .metadata_mut()
        .insert("x-request-id", "mine-2".parse().unwrap());
    let response = client.list_models(request).await.unwrap();
    assert_eq!(response.metadata().get("x-request-id").unwrap(), "mine-2");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_got_has_a_head() {
    let repository = repository();
    let running = Running::start(repository.path()).await;
    let mut head = http_client().head(running.url("/v1/models")).call().unwrap();
    let mut whole = http_client().get(running.url("/v1/models")).call().unwrap();
    assert_eq!(head.status(), 200);
    let body = whole.body_mut().read_to_string().unwrap();
    assert_eq!(head.headers()["content-length"], body.len().to_string().as_str());
    assert_eq!(head.body_mut().read_to_string().unwrap(), "");
    let post_only = running.url("/v1/models/hand/classify");
    assert_eq!(http_client().head(post_only).call().unwrap().status(), 405);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_for_people_needs_nothing_from_elsewhere() {
    let repository = repository();
    let running = Running::start(repository.path()).await;
    let mut response = http_client().get(running.url("/docs")).call().unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = response.body_mut().read_to_string().unwrap();
    assert!(page.contains("openapi.json") && !page.contains("://"), "{page}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_described_by_reflection() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let repository = repository();
    let running = Running::start(repository.path()).await;
    let mut client = ServerReflectionClient::new(channel(&running.grpc_url()).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = futures_util::stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    let answer = tokio::time::timeout(Duration::from_secs(60), answers.message())
        .await
        .unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<_> = services
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in [
        "ventral.v1.Ventral",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    running.stop().await;
}
