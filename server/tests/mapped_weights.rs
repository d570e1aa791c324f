//! Sessions of one bundle share the mapped pages of its weights; none holds a copy.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};

use model::manifest::INPUT_NAME;
use proto::onnx::tensor_proto::DataType;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::{DataType as TensorType, GetActivationsRequest, Tensor};
use support::bundle::{Bundle, DATA_FILE, SCALE, ints};
use support::running::Running;
use support::{to_bytes, to_values};

/// Weights `[4, 4, 1024, 1024]`: a matrix at every position, as locally connected layers have them.
const WIDTH: usize = 1024;
const WEIGHT_BYTES: usize = 16 * WIDTH * WIDTH * 4;

/// `layer1` is the mean over 1024 neurons, at every position, of `x · Σ_k w[k]`, in both channels.
fn bundle() -> Bundle {
    let mut bundle = Bundle::empty(&["relu", "layer1"]);
    let shape = |lengths: &[i64]| lengths.iter().flat_map(|length| length.to_le_bytes()).collect();
    bundle.external("scale", &[1, 2, 1, 1], &SCALE);
    bundle.external_range("weights", &[4, 4, WIDTH as i64, WIDTH as i64], 8192, WEIGHT_BYTES);
    bundle.inline("wide", &[4], DataType::Int64, shape(&[1, 1, 1, WIDTH as i64]));
    bundle.inline("twice", &[4], DataType::Int64, shape(&[1, 2, 1, 1]));
    bundle.node("Mul", &[INPUT_NAME, "scale"], "scaled", vec![]);
    bundle.node("Relu", &["scaled"], "relu", vec![]);
    bundle.node(
        "Transpose",
        &[INPUT_NAME],
        "positions",
        vec![ints("perm", &[2, 3, 0, 1])],
    );
    bundle.node("Expand", &["positions", "wide"], "windows", vec![]);
    bundle.node("MatMul", &["windows", "weights"], "neurons", vec![]);
    bundle.node("ReduceMean", &["neurons"], "means", vec![ints("axes", &[3])]);
    bundle.node(
        "Transpose",
        &["means"],
        "image",
        vec![ints("perm", &[2, 3, 0, 1])],
    );
    bundle.node("Expand", &["image", "twice"], "layer1", vec![]);
    bundle
}

/// Memory of this process that no file is behind.
fn anonymous_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn request(model: &str, layers: &[&str]) -> GetActivationsRequest {
    let input: Vec<f32> = (1..=16_u8).map(f32::from).collect();
    GetActivationsRequest {
        model: model.into(),
        version: String::new(),
        layers: layers.iter().map(ToString::to_string).collect(),
        stimuli: Some(Stimuli::Tensor(Tensor {
            name: String::new(),
            shape: vec![1, 1, 4, 4],
            data_type: TensorType::Float32 as i32,
            data: to_bytes(&input).into(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// Anonymous memory while a server runs whose weights are next to nothing. What a server takes besides them depends on the
/// machine: it has threads for every core.
async fn memory_of_a_small_server() -> usize {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "small", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    for layers in [vec!["layer1"], vec!["relu", "layer1"]] {
        client.get_activations(request("small", &layers)).await.unwrap();
    }
    let memory = anonymous_memory();
    drop(client);
    running.stop().await;
    memory
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_share_the_pages_of_the_weights() {
    let repository = tempfile::tempdir().unwrap();
    let folder = bundle().write(repository.path(), "large", 1);
    let path = folder.join(DATA_FILE).canonicalize().unwrap();
    // A file of zeros, but for the first row of the first position's matrix.
    let mut file: File = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((8192 + WEIGHT_BYTES) as u64).unwrap();
    file.seek(SeekFrom::Start(8192)).unwrap();
    file.write_all(&to_bytes(&[2.0; WIDTH])).unwrap();
    drop(file);

    let before = memory_of_a_small_server().await;
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    for layers in [vec!["layer1"], vec!["relu", "layer1"]] {
        let response = client
            .get_activations(request("large", &layers))
            .await
            .unwrap()
            .into_inner();
        let values = to_values(&response.activations.last().unwrap().data);
        let mut expected = vec![0.0; 32];
        (expected[0], expected[16]) = (2.0, 2.0);
        assert_eq!(values, expected);
    }
    let grown = anonymous_memory().saturating_sub(before);
    assert!(
        grown < WEIGHT_BYTES / 2,
        "{grown} bytes more in memory for {WEIGHT_BYTES} of weights"
    );

    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps
        .lines()
        .filter(|line| line.ends_with(path.to_str().unwrap()))
        .count();
    assert!(mapped > 0, "the data file is not mapped");
    drop(client);
    running.stop().await;
}
