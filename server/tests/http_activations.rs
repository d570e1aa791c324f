//! HTTP: activations of images and arrays, as `.npy`, `.safetensors` and JSON.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use server::Limits;
use socket2::{Domain, Socket, Type};
use support::bundle::{self, Bundle, DIGEST};
use support::running::{Running, config};
use support::{http_client, png, to_bytes, to_values};

/// Status, headers and body of an answer.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn pixels(seed: u8) -> [u8; 16] {
    std::array::from_fn(|position| seed.wrapping_mul(7) ^ (position as u8 * 16))
}

fn relu(seed: u8) -> Vec<f32> {
    bundle::relu(&pixels(seed).map(|pixel| f32::from(pixel) / 255.0))
}

fn post(url: &str, content_type: &str, accept: &str, body: &[u8]) -> Answer {
    try_post(url, content_type, accept, body).unwrap()
}

/// The same, where the connection may be broken.
fn try_post(url: &str, content_type: &str, accept: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
    let request = http_client()
        .post(url)
        .header("Content-Type", content_type)
        .header("Accept", accept);
    let mut answer = request.send(body)?;
    Ok(Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        body: answer.body_mut().with_config().limit(1 << 30).read_to_vec()?,
    })
}

/// A form of files, and of options where there are any.
fn form(files: &[(&str, Vec<u8>)], options: Option<&Value>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head =
            format!("--limit\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    if let Some(options) = options {
        let field =
            format!("--limit\r\nContent-Disposition: form-data; name=\"options\"\r\n\r\n{options}\r\n");
        body.extend_from_slice(field.as_bytes());
    }
    body.extend_from_slice(b"--limit--\r\n");
    body
}

const FORM: &str = "multipart/form-data; boundary=limit";

async fn start() -> (tempfile::TempDir, Running) {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    // Requests of more are put together from parts.
    config.scheduling.maximum_batch = 4.try_into().unwrap();
    let running = Running::start_config(config).await;
    (repository, running)
}

fn files(count: u8) -> Vec<(&'static str, Vec<u8>)> {
    (0..count)
        .map(|seed| ("image.png", png(4, 4, &pixels(seed))))
        .collect()
}

/// The values of an `.npy` file after its header, which must say so.
fn npy(file: &[u8], descr: &str, shape: &str) -> Vec<u8> {
    let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
    let header = std::str::from_utf8(&file[10..10 + length]).unwrap();
    assert!(header.contains(&format!("'descr': '{descr}'")), "{header}");
    assert!(header.contains(&format!("'shape': {shape}")), "{header}");
    assert_eq!((10 + length) % 64, 0);
    file[10 + length..].to_vec()
}

/// An `.npy` file.
fn array(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_come_in_the_format_that_is_accepted() {
    let (_repository, running) = start().await;
    let url = running.url("/v1/models/hand/activations?layers=relu");
    let body = form(&files(10), None);
    let expected: Vec<_> = (0..10).flat_map(relu).collect();

    let answer = post(&url, FORM, "application/x-npy", &body);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/x-npy");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string());
    assert_eq!(answer.headers["ventral-model"], "hand");
    assert_eq!(answer.headers["ventral-version"], "1");
    assert_eq!(answer.headers["ventral-checkpoint-digest"], DIGEST);
    assert_eq!(to_values(&npy(&answer.body, "<f4", "(10, 2, 4, 4, )")), expected);

    let answer = post(&format!("{url},fc"), FORM, "application/vnd.safetensors", &body);
    let tensors = SafeTensors::deserialize(&answer.body).unwrap();
    let layer = tensors.tensor("relu").unwrap();
    assert_eq!((layer.dtype(), layer.shape()), (Dtype::F32, &[10, 2, 4, 4][..]));
    assert_eq!(to_values(layer.data()), expected);
    assert_eq!(tensors.tensor("fc").unwrap().shape(), [10, 3]);
    let (_, metadata) = SafeTensors::read_metadata(&answer.body).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["checkpoint_digest"], DIGEST);

    let answer = post(&format!("{url},fc"), FORM, "*/*", &body);
    assert_eq!(answer.headers["content-type"], "application/json");
    let answer = answer.json();
    assert_eq!(
        (&answer["model"], &answer["version"]),
        (&json!("hand"), &json!("1"))
    );
    let layer = &answer["activations"][0];
    assert_eq!(
        (&layer["layer"], &layer["shape"]),
        (&json!("relu"), &json!([10, 2, 4, 4]))
    );
    let values: Vec<f32> = serde_json::from_value(layer["data"].clone()).unwrap();
    assert_eq!(values, expected);
    assert_eq!(answer["activations"][1]["shape"], json!([10, 3]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_in_the_address_or_in_the_form() {
    let (_repository, running) = start().await;
    let url = running.url("/v1/models/hand/versions/1/activations");
    let image = png(4, 4, &pixels(1));
    let query = "layers=relu&pooling=spatial_max&data_type=float16&format=npy&compression=zstd&priority=bulk";
    let answer = post(&format!("{url}?{query}"), "image/png", "*/*", &image);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-encoding"], "zstd");
    let expected: Vec<u8> = relu(1)
        .chunks(16)
        .flat_map(|channel| {
            half::f16::from_f32(channel.iter().copied().fold(f32::MIN, f32::max)).to_le_bytes()
        })
        .collect();
    let body = zstd::decode_all(&answer.body[..]).unwrap();
    assert_eq!(npy(&body, "<f2", "(1, 2, )"), expected);

    let options = json!({"layers": ["relu"], "units": {"relu": [3, 17]}, "format": "safetensors", "data_type": "bfloat16"});
    let answer = post(&url, FORM, "*/*", &form(&files(3), Some(&options)));
    let tensors = SafeTensors::deserialize(&answer.body).unwrap();
    let layer = tensors.tensor("relu").unwrap();
    assert_eq!((layer.dtype(), layer.shape()), (Dtype::BF16, &[3, 2][..]));
    let expected = (0..3).flat_map(|seed| [relu(seed)[3], relu(seed)[17]]);
    let expected: Vec<u8> = expected
        .flat_map(|value| half::bf16::from_f32(value).to_le_bytes())
        .collect();
    assert_eq!(layer.data(), expected);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arrays_are_stimuli_too() {
    let (_repository, running) = start().await;
    let url = running.url("/v1/models/hand/activations?layers=relu&format=npy");
    let values: Vec<f32> = pixels(5).iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let floats = array("<f4", "(1, 1, 4, 4)", &to_bytes(&values));
    let bytes = array("|u1", "(1, 4, 4, 1)", &pixels(5));
    for (content_type, body) in [
        ("application/x-npy", floats.clone()),
        ("application/octet-stream", bytes.clone()),
        (FORM, form(&[("stimuli.npy", floats.clone())], None)),
    ] {
        let answer = post(&url, content_type, "*/*", &body);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(to_values(&npy(&answer.body, "<f4", "(1, 2, 4, 4, )")), relu(5));
    }
    for (body, expected) in [
        (
            form(&[("a.npy", floats.clone()), ("b.npy", floats)], None),
            "must be the only file",
        ),
        (
            form(&[("a.npy", array("<f8", "(1,)", &[0; 8]))], None),
            "its type is `<f8`",
        ),
        (
            form(&[("a.npy", array("|u1", "(1, 4, 4)", &[0; 16]))], None),
            "its shape is [1, 4, 4]",
        ),
    ] {
        let answer = post(&url, FORM, "*/*", &body);
        assert_eq!(answer.status, 400);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{message}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_answered_say_why() {
    let (_repository, running) = start().await;
    let url = running.url("/v1/models/hand/activations");
    let body = form(&files(1), None);
    for (query, status, expected) in [
        ("", 400, "names no layers"),
        ("?layers=relu,layer9", 404, "no layer `layer9`"),
        ("?layers=relu,fc&format=npy", 400, "an .npy file holds one layer"),
        ("?layers=relu&format=npy&data_type=bfloat16", 400, "no bfloat16"),
        ("?layers=relu,relu&format=safetensors", 400, "asked for twice"),
        ("?layers=relu&format=csv", 400, "query can't be used"),
        ("?layer=relu", 400, "query can't be used"),
        ("?layers=relu&version=7", 404, "no version `7`"),
        ("?layers=relu&projections=pca", 404, "no projection `pca`"),
    ] {
        let answer = post(&format!("{url}{query}"), FORM, "*/*", &body);
        assert_eq!(answer.status, status, "{query}: {}", answer.json());
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{message}");
    }
    let mut twice = form(&[], Some(&json!({})));
    twice.truncate(twice.len() - "--limit--\r\n".len());
    twice.extend(form(&files(1), Some(&json!({}))));
    for (body, expected) in [
        (
            form(&files(1), Some(&json!({"layers": ["relu"], "poling": "mean"}))),
            "unknown field `poling`",
        ),
        (form(&[], Some(&json!({"layers": ["relu"]}))), "no images"),
        (twice, "`options` is not a file"),
    ] {
        let answer = post(&url, FORM, "*/*", &body);
        assert_eq!(answer.status, 400);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(expected), "{message}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_hold_up_no_one() {
    let (_repository, running) = start().await;
    let images = form(&files(250), None);
    let mut readers = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(running.url("").trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(
            stream,
            "POST /v1/models/hand/activations?layers=relu,layer1&format=json HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
             Content-Type: {FORM}\r\nContent-Length: {}\r\n\r\n",
            images.len()
        )
        .unwrap();
        stream.write_all(&images).unwrap();
        readers.push(stream);
    }
    let url = running.url("/v1/models/hand/activations?layers=relu&format=npy");
    let answer = post(&url, "image/png", "*/*", &png(4, 4, &pixels(1)));
    assert_eq!(answer.status, 200);
    // Half of them leave, half of them read everything at last.
    drop(readers.split_off(25));
    for mut reader in readers {
        let mut answer = Vec::new();
        reader.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
        let end = String::from_utf8_lossy(&answer[answer.len() - 40..]);
        assert!(
            end.ends_with("]}\r\n2\r\n]}\r\n0\r\n\r\n"),
            "the answer isn't whole: {end:?}"
        );
    }
    running.wait_for_waiting(0).await;
    running.stop().await;
}

/// Asks for activations over a connection that takes little of the answer before it is read.
fn ask_without_reading(running: &Running, query: &str, stimuli: &[u8]) -> TcpStream {
    let address: SocketAddr = running.url("").trim_start_matches("http://").parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "POST /v1/models/hand/activations?{query} HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-npy\r\n\
         Content-Length: {}\r\n\r\n",
        stimuli.len()
    )
    .unwrap();
    stream.write_all(stimuli).unwrap();
    stream
}

/// The same, once there is a place for it, which is given back a moment after the answer before. Reads the status and leaves
/// the rest of the answer.
fn leave_unread(running: &Running, query: &str, stimuli: &[u8]) -> TcpStream {
    let mut pauses = 0..6000;
    loop {
        let mut unread = ask_without_reading(running, query, stimuli);
        let mut head = [0; 12];
        unread.read_exact(&mut head).unwrap();
        if &head == b"HTTP/1.1 429" && pauses.next().is_some() {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        assert_eq!(&head, b"HTTP/1.1 200", "{query}");
        return unread;
    }
}

/// Whether activations come, within a minute or longer. An answer that this program was too slow to read doesn't count.
fn is_answered_at_last(running: &Running, query: &str, stimuli: &[u8]) -> bool {
    let url = running.url(&format!("/v1/models/hand/activations?{query}"));
    (0..6000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let answer = try_post(&url, "application/x-npy", "*/*", stimuli);
        answer.is_ok_and(|answer| answer.status == 200)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_left_unread_gives_its_place_and_memory_back() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    config.limits.concurrent_requests = 1;
    // Long enough for those who do read.
    config.limits.unread = Duration::from_secs(2);
    // Enough for one of them.
    config.limits.memory_bytes = 6 << 20;
    let running = Running::start_config(config).await;
    let stimuli = array("|u1", "(4096, 1, 4, 4)", &[7; 4096 * 16]);
    let layers = ["relu"; 8].join(",");
    for format in ["json", "npy", "safetensors", "json&compression=zstd"] {
        let layers = match format {
            "npy" | "safetensors" => "relu",
            _ => &layers,
        };
        let query = format!("layers={layers}&format={format}");
        let unread = leave_unread(&running, &query, &stimuli);
        // It is still there and takes nothing, when others are answered.
        assert!(is_answered_at_last(&running, &query, &stimuli), "{format}");
        drop(unread);
    }
    // What is left of it never comes.
    let mut unread = leave_unread(&running, &format!("layers={layers}&format=json"), &stimuli);
    assert!(is_answered_at_last(&running, "layers=relu&format=npy", &stimuli));
    let mut answer = Vec::new();
    // It ends early, or its connection is broken.
    let _ = unread.read_to_end(&mut answer);
    assert!(!answer.ends_with(b"0\r\n\r\n"));
    running.stop().await;
}
