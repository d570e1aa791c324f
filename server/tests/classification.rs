//! HTTP: classification by raw body and by form, the list of models, health, and JSON errors.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use server::front::Front;
use server::front::readiness::Phase;
use server::inference::Inference;
use server::onnx_runtime::OnnxRuntime;
use server::provider::ProviderChoice;
use server::security::access::Access;
use server::state::State;
use server::{Limits, RepositoryOptions, Scheduling};
use support::bundle::{self, Bundle, CLASSES, DIGEST};
use support::running::Running;
use support::{http_client, png};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

const PIXELS: [u8; 16] = [
    0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255,
];

/// Sends a body; the status and the JSON of the answer.
fn post(url: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
    let request = http_client().post(url).header("Content-Type", content_type);
    answer(request.send(body).unwrap())
}

fn get(url: &str) -> (u16, Value) {
    answer(http_client().get(url).call().unwrap())
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> (u16, Value) {
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&text).unwrap())
}

/// A form of files.
fn form(files: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in files {
        write!(
            body,
            "--limit\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
             Content-Type: image/png\r\n\r\n"
        )
        .unwrap();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--limit--\r\n");
    ("multipart/form-data; boundary=limit".into(), body)
}

/// Classes and probabilities of an image, likeliest first, by hand.
fn expected(pixels: &[u8; 16]) -> Vec<(usize, f64)> {
    let logits = bundle::fc(&pixels.map(|pixel| f32::from(pixel) / 255.0));
    let exponentials: Vec<_> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    let mut classes: Vec<_> = exponentials.iter().map(|value| value / sum).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}

fn assert_classified(answer: &Value, pixels: &[u8; 16], classes: usize) {
    assert_eq!(answer["model"], "hand");
    assert_eq!(answer["version"], "1");
    assert_eq!(answer["checkpoint_digest"], DIGEST);
    let predictions = answer["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), classes);
    for (prediction, (class, probability)) in predictions.iter().zip(expected(pixels)) {
        assert_eq!(prediction["class"], class);
        assert_eq!(prediction["name"], CLASSES[class]);
        let found = prediction["probability"].as_f64().unwrap();
        assert!(
            (found - probability).abs() < 1e-5,
            "{found} instead of {probability}"
        );
    }
}

fn assert_error((status, body): (u16, Value), expected_status: u16, code: &str, message: &str) {
    assert_eq!(status, expected_status, "{body}");
    assert_eq!(body["error"]["code"], code, "{body}");
    assert!(
        body["error"]["message"].as_str().unwrap().contains(message),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_as_the_body_is_classified() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let url = running.url("/v1/models/hand/classify");
    let image = png(4, 4, &PIXELS);
    let curls = "application/x-www-form-urlencoded";
    for content_type in ["image/png", "IMAGE/JPEG", "application/octet-stream; x=y", curls] {
        let (status, answer) = post(&url, content_type, &image);
        assert_eq!(status, 200, "{answer}");
        assert_classified(&answer, &PIXELS, 3);
    }
    for (top_k, classes) in [(1, 1), (2, 2), (50, 3)] {
        let (status, answer) = post(&format!("{url}?top_k={top_k}"), "image/png", &image);
        assert_eq!(status, 200, "{answer}");
        assert_classified(&answer, &PIXELS, classes);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_form_are_classified_in_their_order() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let url = running.url("/v1/models/hand/classify?top_k=2");
    let reversed = std::array::from_fn(|position| PIXELS[15 - position]);
    let (first, second) = (png(4, 4, &PIXELS), png(4, 4, &reversed));

    let (content_type, body) = form(&[("first.png", &first), ("second.png", &second)]);
    let (status, answers) = post(&url, &content_type, &body);
    assert_eq!(status, 200, "{answers}");
    assert_eq!(answers.as_array().unwrap().len(), 2);
    assert_classified(&answers[0], &PIXELS, 2);
    assert_classified(&answers[1], &reversed, 2);

    let (content_type, body) = form(&[("only.png", &first)]);
    let (_, answers) = post(&url, &content_type, &body);
    assert_eq!(answers.as_array().unwrap().len(), 1);

    let (content_type, body) = form(&[("first.png", &first), ("second.png", b"no image")]);
    assert_error(
        post(&url, &content_type, &body),
        400,
        "INVALID_ARGUMENT",
        "image 1",
    );
    let (content_type, body) = form(&[]);
    assert_error(post(&url, &content_type, &body), 400, "INVALID_ARGUMENT", "");
    let text = "--limit\r\nContent-Disposition: form-data; name=\"top_k\"\r\n\r\n3\r\n--limit--\r\n";
    assert_error(
        post(&url, &content_type, text.as_bytes()),
        400,
        "INVALID_ARGUMENT",
        "`top_k` is not a file",
    );
    assert_error(
        post(&url, &content_type, &first),
        400,
        "INVALID_ARGUMENT",
        "the body can't be read",
    );
    assert_error(
        post(&url, "multipart/form-data", &first),
        400,
        "INVALID_ARGUMENT",
        "oundary",
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_without_names_are_called_by_their_position() {
    let repository = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new();
    bundle.manifest.class_names.clear();
    bundle.write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let (_, answer) = post(
        &running.url("/v1/models/hand/classify"),
        "image/png",
        &png(4, 4, &PIXELS),
    );
    for prediction in answer["predictions"].as_array().unwrap() {
        assert_eq!(prediction["name"], prediction["class"].to_string());
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_in_json() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut headless = Bundle::new();
    headless.manifest.layers.pop();
    headless.write(repository.path(), "headless", 1);
    let running = Running::start(repository.path()).await;
    let url = running.url("/v1/models/hand/classify");
    let image = png(4, 4, &PIXELS);
    let invalid = "INVALID_ARGUMENT";
    assert_error(post(&url, "image/png", b"no image"), 400, invalid, "image 0");
    assert_error(post(&url, "image/png", b""), 400, invalid, "no images");
    assert_error(
        post(&url, "application/json", b"{}"),
        415,
        invalid,
        "Content-Type: image/png",
    );
    for query in ["top_k=0", "top_k=-1", "top_k=all", "topk=3"] {
        assert_error(
            post(&format!("{url}?{query}"), "image/png", &image),
            400,
            invalid,
            "",
        );
    }
    let missing = running.url("/v1/models/head/classify");
    assert_error(
        post(&missing, "image/png", &image),
        404,
        "NOT_FOUND",
        "there are: hand",
    );
    assert_error(
        post(&format!("{url}?version=7"), "image/png", &image),
        404,
        "NOT_FOUND",
        "it has: 1",
    );
    let headless = running.url("/v1/models/headless/classify");
    assert_error(
        post(&headless, "image/png", &image),
        404,
        "NOT_FOUND",
        "no layer `fc`",
    );
    assert_error(get(&running.url("/v1/model")), 404, "NOT_FOUND", "GET /v1/model");
    let response = http_client().get(&url).call().unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    assert_error(answer(response), 405, "UNIMPLEMENTED", "takes POST, not GET");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_past_the_limit_are_refused() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let limits = Limits {
        body_bytes: 2000,
        image: model::image::Limits {
            bytes: 1000,
            pixels: 100,
        },
        images: 2,
        ..Limits::default()
    };
    let running = Running::start_with(repository.path(), limits).await;
    let url = running.url("/v1/models/hand/classify");
    let exhausted = "RESOURCE_EXHAUSTED";
    assert_error(
        post(&url, "image/png", &[0; 2001]),
        413,
        exhausted,
        "more than 2000 bytes",
    );
    assert_error(
        post(&url, "image/png", &[0; 1001]),
        413,
        exhausted,
        "1001 bytes, at most 1000",
    );
    let large = png(11, 10, &[0; 110]);
    assert_error(
        post(&url, "image/png", &large),
        413,
        exhausted,
        "11x10 pixels, at most 100",
    );

    // A body of unknown length, which is found out while it is read.
    for (content_type, body) in [
        ("image/png".to_owned(), vec![0; 2001]),
        form(&[("a", &[0; 900]), ("b", &[0; 1000])]),
    ] {
        let mut unknown = std::io::Cursor::new([body.as_slice(), &[0; 500]].concat());
        let request = http_client().post(&url).header("Content-Type", content_type);
        let response = request.send(ureq::SendBody::from_reader(&mut unknown)).unwrap();
        assert_error(answer(response), 413, exhausted, "bytes");
    }
    let (content_type, body) = form(&[("a", &[0; 1001])]);
    assert_error(post(&url, &content_type, &body), 413, exhausted, "image 0");
    let (content_type, body) = form(&[("a", b"x"), ("b", b"x"), ("c", b"x")]);
    assert_error(
        post(&url, &content_type, &body),
        413,
        exhausted,
        "3 images, at most 2",
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_a_body_harms_no_one() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let address = running.url("").trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "POST /v1/models/hand/classify HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n\
         Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    )
    .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    stream.write_all(&[0; 10]).unwrap();
    drop(stream);
    let image = png(4, 4, &PIXELS);
    assert_eq!(
        post(&running.url("/v1/models/hand/classify"), "image/png", &image).0,
        200
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed() {
    let repository = tempfile::tempdir().unwrap();
    for (model, version) in [("b", 10), ("b", 9), ("a", 1)] {
        Bundle::new().write(repository.path(), model, version);
    }
    let running = Running::start(repository.path()).await;
    let (status, answer) = get(&running.url("/v1/models"));
    assert_eq!(status, 200);
    let models = answer["models"].as_array().unwrap();
    let names: Vec<_> = models.iter().map(|model| &model["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(models[0]["versions"], json!(["1"]));
    assert_eq!(
        answer["execution_provider"],
        json!({"name": "CPU", "reason": "asked for"})
    );
    assert_eq!(models[1]["versions"], json!(["9", "10"]));
    let bundle = &models[1]["bundles"][1];
    assert_eq!(bundle["version"], "10");
    assert_eq!(bundle["loaded"], true);
    assert!(bundle["load_seconds"].as_f64().unwrap() > 0.0, "{bundle}");
    // `scale` takes a page, the readout's matrix follows.
    assert_eq!(bundle["weight_bytes"], 4096 + 32 * 3 * 4, "{bundle}");
    if cfg!(target_os = "linux") {
        assert!(bundle["resident_bytes"].as_u64().is_some(), "{bundle}");
    }
    assert_eq!(get(&running.url("/healthz")).0, 200);
    assert_eq!(get(&running.url("/readyz")).0, 200);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_alive_before_it_is_ready() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let onnx_runtime = OnnxRuntime::start(Some(2), ProviderChoice::Cpu).unwrap();
    let limits = Limits::default();
    let inference = Inference::new(onnx_runtime, Handle::current(), 2, limits, Scheduling::default());
    let state = Arc::new(State::new(inference, limits));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let front = Arc::new(Front::new(Access::new(None, true, false)));
    let (state_too, front_too) = (Arc::clone(&state), Arc::clone(&front));
    let serving = tokio::spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        let grace = Duration::from_secs(30);
        server::http::serve(listener, state_too, front_too, None, grace, stop).await
    });

    assert_eq!(get(&format!("{url}/healthz")).0, 200);
    for path in ["/readyz", "/v1/models"] {
        assert_error(get(&format!("{url}{path}")), 503, "UNAVAILABLE", "being loaded");
    }
    state
        .load(repository.path(), RepositoryOptions::default())
        .await
        .unwrap();
    front.readiness.enter(Phase::Serving);
    for path in ["/readyz", "/v2/health/ready"] {
        assert_eq!(get(&format!("{url}{path}")).0, 200);
    }
    front.readiness.enter(Phase::Draining);
    assert_error(get(&format!("{url}/readyz")), 503, "UNAVAILABLE", "stopping");
    assert_eq!(get(&format!("{url}/v2/health/ready")).0, 503);
    assert_eq!(get(&format!("{url}/v1/models")).0, 200);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
