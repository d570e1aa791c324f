//! Activations are bit for bit those of ONNX Runtime on the same tensors, alone and in batches with those of strangers.
//!
//! ONNX Runtime multiplies by a single column in another order than by two or more, and divides long sums into fewer terms
//! the more columns there are beyond 16. So requests of two images or more come out the same in any batch of 16, and in
//! larger ones where sums are short; whatever is asked for as `exclusive` does, and everything else nearly so.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "differences are worth knowing")]

mod support;

use std::path::Path;

use proto::onnx::tensor_proto::DataType as OnnxType;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{ActivationOptions, DataType, GetActivationsRequest, Tensor};
use server::bundle::Bundle as LoadedBundle;
use server::onnx_runtime::OnnxRuntime;
use server::session::{Batch, Session};
use server::{Limits, ProviderChoice};
use support::bundle::{Bundle, ints};
use support::running::{Running, config};
use support::{to_bytes, to_values};
use tonic::transport::Channel;

/// The sums of the first two are of no more than 96 terms.
const LAYERS: [&str; 3] = ["layer1", "fc", "layer3"];

/// As wide as layers are: kernels treat small matrices differently.
const WIDTH: usize = 96;

/// Images in a batch beyond which ONNX Runtime divides long sums into other parts.
const SAME_PARTS: usize = 16;

/// The greatest difference that the number of images in a batch makes, relative to the layer's greatest value.
const BOUND: f32 = 2e-6;

fn value(index: usize) -> f32 {
    (index as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5
}

/// Locally connected layers as they are exported: the batch innermost, a product at every position.
fn bundle() -> Bundle {
    let mut bundle = Bundle::empty(&LAYERS);
    let values = |count: usize, seed: usize| (0..count).map(|index| value(index + seed)).collect::<Vec<_>>();
    let integers = |values: &[i64]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    bundle.external("first", &[4, 4, WIDTH as i64, 16], &values(16 * WIDTH * 16, 1));
    bundle.external("second", &[4, 4, 2, WIDTH as i64], &values(16 * 2 * WIDTH, 2));
    bundle.external("weight", &[32, 3], &values(96, 3));
    bundle.external("bias", &[3], &values(3, 4));
    let all = 16 * WIDTH as i64;
    bundle.external("third", &[1, 1, 8, all], &values(8 * 16 * WIDTH, 5));
    bundle.inline("column", &[4], OnnxType::Int64, integers(&[1, 1, all, -1]));
    bundle.inline("flat", &[4], OnnxType::Int64, integers(&[1, 1, 16, -1]));
    bundle.inline("positions", &[4], OnnxType::Int64, integers(&[4, 4, 1, 1]));
    bundle.node(
        "Transpose",
        &["input"],
        "innermost",
        vec![ints("perm", &[1, 2, 3, 0])],
    );
    bundle.node("Reshape", &["innermost", "flat"], "window", vec![]);
    // The same window at every position.
    bundle.node("Tile", &["window", "positions"], "windows", vec![]);
    bundle.node("MatMul", &["first", "windows"], "hidden", vec![]);
    bundle.node("Relu", &["hidden"], "rectified", vec![]);
    bundle.node("MatMul", &["second", "rectified"], "out", vec![]);
    bundle.node("Transpose", &["out"], "layer1", vec![ints("perm", &[3, 2, 0, 1])]);
    bundle.node(
        "Flatten",
        &["layer1"],
        "features",
        vec![support::bundle::int("axis", 1)],
    );
    bundle.node("Gemm", &["features", "weight", "bias"], "fc", vec![]);
    // A sum of as many terms as deep layers have.
    bundle.node("Reshape", &["rectified", "column"], "long", vec![]);
    bundle.node("MatMul", &["third", "long"], "sums", vec![]);
    bundle.node(
        "Transpose",
        &["sums"],
        "layer3",
        vec![ints("perm", &[3, 2, 0, 1])],
    );
    bundle
}

fn images(count: usize, seed: usize) -> Vec<f32> {
    (0..count * 16).map(|index| value(index + seed * 1000)).collect()
}

/// What ONNX Runtime gives for the tensor, without the server.
fn alone(folder: &Path, images: &[f32]) -> Vec<Vec<f32>> {
    let runtime = OnnxRuntime::start(Some(2), ProviderChoice::Cpu).unwrap();
    let bundle = LoadedBundle::load("deep", 1, folder).unwrap();
    let positions = LAYERS.map(|layer| bundle.layer_position(layer).unwrap());
    let mut session = Session::load(&runtime, &bundle, &positions).unwrap();
    let count = images.len() / 16;
    let batch = Batch {
        shape: [count, 1, 4, 4],
        values: images,
    };
    let outputs = session.run(batch).unwrap();
    outputs
        .iter()
        .map(|output| output.values(0..count).to_vec())
        .collect()
}

async fn served(client: &mut VentralClient<Channel>, images: &[f32], exclusive: bool) -> Vec<Vec<f32>> {
    let request = GetActivationsRequest {
        model: "deep".into(),
        layers: LAYERS.map(String::from).to_vec(),
        stimuli: Some(Stimuli::Tensor(Tensor {
            shape: vec![images.len() as u64 / 16, 1, 4, 4],
            data_type: DataType::Float32 as i32,
            data: to_bytes(images).into(),
            ..Default::default()
        })),
        options: Some(ActivationOptions {
            exclusive,
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = client.get_activations(request).await.unwrap().into_inner();
    answer
        .activations
        .iter()
        .map(|tensor| to_values(&tensor.data))
        .collect()
}

fn bits(layers: &[Vec<f32>]) -> Vec<Vec<u32>> {
    layers
        .iter()
        .map(|layer| layer.iter().map(|value| value.to_bits()).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_alone_is_what_onnx_runtime_computes() {
    let repository = tempfile::tempdir().unwrap();
    let folder = bundle().write(repository.path(), "deep", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    for count in [1, 2, 3, 17, 64] {
        let images = images(count, count);
        let found = served(&mut client, &images, false).await;
        assert_eq!(bits(&found), bits(&alone(&folder, &images)), "{count} images");
    }
    running.stop().await;
}

/// Requests of these sizes are computed in one batch, and come out as each does alone: those of two images or more bit for
/// bit in the first `exact` layers, everything else within the bound.
async fn compare_with_strangers(sizes: &[usize], exact: usize) {
    let repository = tempfile::tempdir().unwrap();
    let folder = bundle().write(repository.path(), "deep", 1);
    let mut config = config(repository.path(), Limits::default());
    // Nothing is computed before the batch is full, which so many requests of these sizes just make it.
    config.scheduling.maximum_batch = sizes.iter().sum::<usize>().try_into().unwrap();
    config.scheduling.maximum_delay = std::time::Duration::from_secs(3600);
    let running = Running::start_config(config).await;
    let client = running.client().await;
    let requests = sizes.iter().enumerate().map(|(seed, &count)| {
        let mut client = client.clone();
        let images = images(count, seed);
        tokio::spawn(async move {
            let found = served(&mut client, &images, false).await;
            (images, found)
        })
    });
    for request in requests.collect::<Vec<_>>() {
        let (images, found) = request.await.unwrap();
        let expected = alone(&folder, &images);
        let count = images.len() / 16;
        let exact = if count == 1 { 0 } else { exact };
        assert_eq!(bits(&found[..exact]), bits(&expected[..exact]), "{count} images");
        for (layer, (found, expected)) in LAYERS.iter().zip(found.iter().zip(&expected)).skip(exact) {
            let difference = difference(found, expected);
            println!("{layer} of {count} images: {difference:.1e} of the greatest value");
            assert!(difference <= BOUND);
        }
    }
    running.stop().await;
}

/// The greatest difference, relative to the greatest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let greatest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
    let differences = &mut found
        .iter()
        .zip(expected)
        .map(|(found, expected)| found - expected);
    greatest(differences) / greatest(&mut expected.iter().copied())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_among_some_strangers_is_what_onnx_runtime_computes() {
    let sizes = [1, 2, 3, 5, 1, 4];
    assert_eq!(sizes.iter().sum::<usize>(), SAME_PARTS);
    compare_with_strangers(&sizes, LAYERS.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_many_strangers_long_sums_are_rounded_otherwise() {
    compare_with_strangers(&[1, 2, 3, 5, 8, 1, 4, 40], LAYERS.len() - 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exclusive_or_split_is_what_onnx_runtime_computes() {
    let repository = tempfile::tempdir().unwrap();
    let folder = bundle().write(repository.path(), "deep", 1);
    let mut config = config(repository.path(), Limits::default());
    config.scheduling.maximum_batch = 8.try_into().unwrap();
    let running = Running::start_config(config).await;
    let client = running.client().await;
    let mut requests = Vec::new();
    for seed in 0..40 {
        let mut client = client.clone();
        // Those of 9 images are split; an uneven split would leave one over.
        let (count, exclusive) = [(1, true), (9, false), (3, false), (25, true)][seed % 4];
        requests.push(tokio::spawn(async move {
            let images = images(count, seed);
            let found = served(&mut client, &images, exclusive).await;
            (images, found)
        }));
    }
    for request in requests {
        let (images, found) = request.await.unwrap();
        let expected = alone(&folder, &images);
        let count = images.len() / 16;
        let exact = if count > SAME_PARTS {
            LAYERS.len() - 1
        } else {
            LAYERS.len()
        };
        assert_eq!(bits(&found[..exact]), bits(&expected[..exact]), "{count} images");
        for (found, expected) in found.iter().zip(&expected).skip(exact) {
            assert!(difference(found, expected) <= BOUND);
        }
    }
    running.stop().await;
}
