//! The Open Inference Protocol, as far as it needs no client of others': typed contents, streams, bodies that lie about
//! their lengths, bodies that unpack to too much.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelReadyRequest,
    RepositoryIndexRequest, RepositoryModelUnloadRequest,
};
use serde_json::{Value, json};
use server::Limits;
use support::bundle::{self, Bundle};
use support::running::Running;
use support::{http_client, to_bytes, to_values};
use tonic::transport::Channel;
use tonic::{Code, Status};

const IMAGE: [f32; 16] = [
    0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 0.125, 3.0, -3.0, 0.75, 1.5, -1.5, 0.0, 4.0, -0.5, 1.0,
];

async fn connect(running: &Running) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::connect(running.grpc_url())
        .await
        .unwrap()
}

/// A request for a layer of one image, whose elements are in the message's field for them.
fn request(layer: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "hand".into(),
        id: layer.into(),
        inputs: vec![InferInputTensor {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1, 4, 4],
            contents: Some(InferTensorContents {
                fp32_contents: IMAGE.to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        outputs: vec![InferRequestedOutputTensor {
            name: layer.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn values(response: &ModelInferResponse) -> Vec<f32> {
    assert_eq!(response.outputs.len(), 1);
    assert_eq!(response.outputs[0].datatype, "FP32");
    to_values(&response.raw_output_contents[0])
}

async fn running(repository: &Path) -> Running {
    Bundle::new().write(repository, "hand", 1);
    Running::start(repository).await
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_are_taken_typed_and_raw_and_not_both() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let mut client = connect(&running).await;
    let typed = request("relu");
    let mut raw = request("relu");
    raw.inputs[0].contents = None;
    raw.raw_input_contents = vec![to_bytes(&IMAGE).into()];
    for request in [typed.clone(), raw.clone()] {
        let response = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!(
            (response.id.as_str(), response.model_version.as_str()),
            ("relu", "1")
        );
        assert_eq!(response.outputs[0].shape, [1, 2, 4, 4]);
        assert_eq!(values(&response), bundle::relu(&IMAGE));
    }

    let mut refused = Vec::new();
    let mut both = raw.clone();
    both.inputs[0].contents = typed.inputs[0].contents.clone();
    refused.push((both, "both `contents` and `raw_input_contents`"));
    let mut more = raw.clone();
    more.raw_input_contents.push(b"1234"[..].into());
    refused.push((more, "1 inputs and 2 entries"));
    let mut short = raw.clone();
    short.raw_input_contents = vec![to_bytes(&IMAGE[1..]).into()];
    refused.push((short, "needs 64 bytes, but it has 60"));
    let mut other = typed.clone();
    other.inputs[0].contents = Some(InferTensorContents {
        fp64_contents: vec![0.0; 16],
        ..Default::default()
    });
    refused.push((other, "`fp32_contents`"));
    let mut negative = typed.clone();
    negative.inputs[0].shape = vec![-1, 1, 4, 4];
    refused.push((negative, "negative length"));
    let mut none = typed.clone();
    none.inputs.clear();
    refused.push((none, "no inputs"));
    let mut two = typed.clone();
    two.inputs.push(two.inputs[0].clone());
    refused.push((two, "takes only `input`"));
    let mut shared = typed.clone();
    let region = ParameterChoice::StringParam("region".into());
    let region = InferParameter {
        parameter_choice: Some(region),
    };
    shared.outputs[0].parameters = [("shared_memory_region".into(), region)].into();
    refused.push((shared, "`shared_memory_region` is not supported"));
    for (request, message) in refused {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(message), "{status}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_answered_in_its_order_whatever_fails() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let mut client = connect(&running).await;
    let layers: Vec<_> = ["relu", "layer9", "fc", "layer1"]
        .into_iter()
        .cycle()
        .take(200)
        .collect();
    let requests: Vec<_> = layers.iter().map(|layer| request(layer)).collect();
    let stream = client
        .model_stream_infer(futures_util::stream::iter(requests))
        .await;
    let mut stream = stream.unwrap().into_inner();
    for layer in layers {
        let answer = stream.message().await.unwrap().unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, layer);
        match layer {
            "layer9" => assert!(answer.error_message.contains("no layer `layer9`")),
            _ => assert!(answer.error_message.is_empty()),
        }
        match layer {
            "relu" => assert_eq!(values(&response), bundle::relu(&IMAGE)),
            "layer1" => assert_eq!(values(&response), bundle::layer1(&IMAGE)),
            _ => {}
        }
    }
    assert!(stream.message().await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_isn_t_there_is_not_ready_and_not_found() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let mut client = connect(&running).await;
    for (name, version, expected) in [
        ("hand", "", true),
        ("hand", "1", true),
        ("hand", "2", false),
        ("foot", "", false),
    ] {
        let request = ModelReadyRequest {
            name: name.into(),
            version: version.into(),
        };
        let ready = client.model_ready(request).await.unwrap().into_inner().ready;
        assert_eq!(ready, expected, "{name} {version}");
    }
    let unload = |model: &str, repository: &str| RepositoryModelUnloadRequest {
        repository_name: repository.into(),
        model_name: model.into(),
        ..Default::default()
    };
    assert_eq!(
        code(client.repository_model_unload(unload("foot", "")).await),
        Code::NotFound
    );
    let named = client.repository_model_unload(unload("hand", "other")).await;
    assert_eq!(code(named), Code::InvalidArgument);
    client.repository_model_unload(unload("hand", "")).await.unwrap();
    assert_eq!(code(client.model_infer(request("fc")).await), Code::Unavailable);
    for (ready, expected) in [(false, 1), (true, 0)] {
        let request = RepositoryIndexRequest {
            ready,
            ..Default::default()
        };
        let index = client.repository_index(request).await.unwrap().into_inner();
        assert_eq!(index.models.len(), expected);
    }
    running.stop().await;
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.map(|_| ()).unwrap_err().code()
}

/// An answer's status, headers and body.
fn post(url: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut request = http_client().post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body).unwrap();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.collect();
    (
        response.status().as_u16(),
        headers,
        response.body_mut().read_to_vec().unwrap(),
    )
}

/// The message of a refusal with this status.
fn refusal(expected: u16, (status, _, body): (u16, Vec<(String, String)>, Vec<u8>)) -> String {
    assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["error"].as_str().unwrap().to_owned()
}

const LENGTH: &str = "Inference-Header-Content-Length";

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_lie_about_their_lengths_are_refused() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let url = running.url("/v2/models/hand/infer");
    let json = json!({
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 4, 4],
                    "parameters": {"binary_data_size": 64}}],
        "outputs": [{"name": "relu", "parameters": {"binary_data": true}}],
    })
    .to_string();
    let body = [json.as_bytes(), &to_bytes(&IMAGE)].concat();
    let length = json.len().to_string();

    let (status, headers, answer) = post(&url, &[(LENGTH, &length)], &body);
    assert_eq!(status, 200);
    let header = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(LENGTH))
        .unwrap();
    let (json, raw) = answer.split_at(header.1.parse().unwrap());
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], raw.len());
    assert_eq!(to_values(raw), bundle::relu(&IMAGE));

    for wrong in ["0", "10", "99999999999", "18446744073709551616", "-1", "many"] {
        refusal(400, post(&url, &[(LENGTH, wrong)], &body));
    }
    let message = refusal(400, post(&url, &[(LENGTH, &length)], &body[..body.len() - 1]));
    assert!(message.contains("only 63 bytes are left"), "{message}");
    let message = refusal(400, post(&url, &[(LENGTH, &length)], &[&body[..], b"x"].concat()));
    assert!(message.contains("1 bytes follow"), "{message}");
    refusal(400, post(&url, &[], &body));
    refusal(400, post(&url, &[], b""));
    let missing = running.url("/v2/models/hand/versions/2/infer");
    let message = refusal(404, post(&missing, &[(LENGTH, &length)], &body));
    assert!(message.contains("it has: 1"), "{message}");
    let message = refusal(404, post(&running.url("/v2/nothing"), &[], b""));
    assert!(message.contains("/v2/nothing"), "{message}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_unpack_to_too_much_are_refused() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let limits = Limits {
        body_bytes: 1 << 20,
        ..Limits::default()
    };
    let running = Running::start_with(repository.path(), limits).await;
    let url = running.url("/v2/models/hand/infer");
    let zeros = vec![b' '; 512 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&zeros).unwrap();
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&zeros[..64 << 20]).unwrap();
    let (gzip, deflate) = (gzip.finish().unwrap(), deflate.finish().unwrap());
    for (coding, body) in [("gzip", &gzip), ("deflate", &deflate)] {
        // What is too large already when it is packed is refused as such.
        let body = &body[..body.len().min(1 << 20)];
        let message = refusal(413, post(&url, &[("Content-Encoding", coding)], body));
        assert!(message.contains("1048576"), "{message}");
        let nonsense = post(&url, &[("Content-Encoding", coding)], b"nonsense");
        let message = refusal(400, nonsense);
        assert!(message.contains(coding), "{message}");
    }
    let message = refusal(400, post(&url, &[("Content-Encoding", "br")], b"{}"));
    assert!(message.contains("`br` is not supported"), "{message}");
    refusal(413, post(&url, &[], &zeros[..(1 << 20) + 1]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_would_grow_in_memory_is_refused() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let url = running.url("/v2/models/hand/infer");
    let zeros = "0,".repeat(16 << 20);
    let inputs = r#"{"name": "", "shape": [], "datatype": "", "data": []},"#.repeat(1000);
    for (body, problem) in [
        (
            format!(r#"{{"inputs": [], "parameters": {{"a": [{zeros}0]}}}}"#),
            "invalid type: sequence",
        ),
        (
            format!(r#"{{"inputs": [{{"name": "input", "datatype": "FP32", "shape": [{zeros}0]}}]}}"#),
            "more than 32 elements",
        ),
        (
            format!(r#"{{"inputs": [{}]}}"#, inputs.trim_end_matches(',')),
            "more than 16 elements",
        ),
    ] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(body.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let message = refusal(400, post(&url, &[("Content-Encoding", "gzip")], &gzip));
        assert!(message.contains(problem), "{message}");
    }
    let index = running.url("/v2/repository/index");
    let body = format!(r#"{{"a": [{}0]}}"#, &zeros[..1 << 20]);
    refusal(413, post(&index, &[], body.as_bytes()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_json_lacks_need_the_binary_form() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let url = running.url("/v2/models/hand/infer");
    let mut image = IMAGE;
    image[0] = f32::INFINITY;
    let request = |raw: bool| {
        let json = json!({
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 4, 4],
                        "parameters": {"binary_data_size": 64}}],
            "outputs": [{"name": "relu", "parameters": {"binary_data": raw}}],
        })
        .to_string();
        let body = [json.as_bytes(), &to_bytes(&image)].concat();
        post(&url, &[(LENGTH, &json.len().to_string())], &body)
    };
    let message = refusal(400, request(false));
    assert!(message.contains("binary_data"), "{message}");
    let (status, _, body) = request(true);
    assert_eq!(status, 200);
    assert_eq!(to_values(&body[body.len() - 128..])[0], f32::INFINITY);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_and_priorities_are_understood() {
    let repository = tempfile::tempdir().unwrap();
    let running = running(repository.path()).await;
    let mut client = connect(&running).await;
    let with = |name: &str, choice: ParameterChoice| {
        let parameter = InferParameter {
            parameter_choice: Some(choice),
        };
        let mut request = request("relu");
        request.parameters.insert(name.into(), parameter);
        request
    };
    for (name, choice) in [
        ("priority", ParameterChoice::Uint64Param(7)),
        ("priority", ParameterChoice::Int64Param(1)),
        ("timeout", ParameterChoice::Int64Param(600_000_000)),
    ] {
        let answer = client.model_infer(with(name, choice)).await.unwrap().into_inner();
        assert_eq!(values(&answer), bundle::relu(&IMAGE), "{name}");
    }
    let late = with("timeout", ParameterChoice::Int64Param(1));
    assert_eq!(code(client.model_infer(late).await), Code::DeadlineExceeded);
    for (name, choice) in [
        ("priority", ParameterChoice::Int64Param(-1)),
        ("timeout", ParameterChoice::StringParam("soon".into())),
    ] {
        let refused = client.model_infer(with(name, choice)).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{name}");
    }

    let url = running.url("/v2/models/hand/infer");
    let infer = |parameters: Value| {
        let input = json!({"name": "input", "datatype": "FP32", "shape": [1, 1, 4, 4], "data": IMAGE});
        let body = json!({"parameters": parameters, "inputs": [input], "outputs": [{"name": "relu"}]});
        post(&url, &[], body.to_string().as_bytes())
    };
    assert_eq!(infer(json!({"priority": 2, "timeout": 600_000_000})).0, 200);
    let message = refusal(504, infer(json!({"timeout": 1})));
    assert!(message.contains("in the time that it had"), "{message}");
    let message = refusal(400, infer(json!({"priority": "high"})));
    assert!(message.contains("`priority` is not a whole number"), "{message}");

    // Its stages are those of the requests that succeeded.
    let mut response = http_client()
        .get(running.url("/v2/models/hand/stats"))
        .call()
        .unwrap();
    assert_eq!(response.status(), 200);
    let statistics: Value = serde_json::from_slice(&response.body_mut().read_to_vec().unwrap()).unwrap();
    let statistics = &statistics["model_stats"][0];
    assert_eq!(
        (&statistics["inference_count"], &statistics["execution_count"]),
        (&json!(4), &json!(4))
    );
    for stage in [
        "success",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
    ] {
        assert_eq!(statistics["inference_stats"][stage]["count"], 4, "{stage}");
    }
    assert_eq!(statistics["inference_stats"]["fail"]["count"], 2);
    assert!(
        statistics["inference_stats"]["compute_infer"]["ns"]
            .as_u64()
            .unwrap()
            > 0
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_an_answer_counts_as_memory() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let limits = Limits {
        memory_bytes: 8 << 10,
        ..Limits::default()
    };
    let running = Running::start_with(repository.path(), limits).await;
    let url = running.url("/v2/models/hand/infer");
    let infer = |raw: bool| {
        let json = json!({
            "inputs": [{"name": "input", "datatype": "FP32", "shape": [16, 1, 4, 4],
                        "parameters": {"binary_data_size": 1024}}],
            "outputs": [{"name": "relu", "parameters": {"binary_data": raw}}],
        })
        .to_string();
        let body = [json.as_bytes(), &to_bytes(&IMAGE.repeat(16))].concat();
        post(&url, &[(LENGTH, &json.len().to_string())], &body)
    };
    let (status, _, body) = infer(true);
    assert_eq!(status, 200);
    assert_eq!(to_values(&body[body.len() - 128..]), bundle::relu(&IMAGE));
    let message = refusal(413, infer(false));
    assert!(message.contains("at most 8192"), "{message}");
    running.stop().await;
}
