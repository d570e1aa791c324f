//! The authors' networks through every program: imported, exported, verified with tract, served by ONNX Runtime. Every
//! activation must be the one that the authors' implementation computed.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::print_stdout, reason = "the worst errors are worth knowing")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::checkpoint::{Dtype, View};
use model::{Checkpoint, Recording};
use serde::Deserialize;
use tests::programs::{in_checkout, run};
use tests::server::Server;
use tests::tensors::{self, Tensor};
use tests::wire::Client;

/// The largest error as a fraction of a tensor's largest magnitude.
const TOLERANCE: f64 = 1e-4;

#[test]
fn the_convolutional_resnet18() {
    check("conv_resnet18_w4_s64", &["--input-size", "64"]);
}

#[test]
fn the_locally_connected_resnet18() {
    check("lc_resnet18_w2_s64", &[]);
}

#[test]
fn the_locally_connected_cifar_resnet_with_a_convolutional_stem() {
    check("lc1conv_resnet_cifar_w4_s16", &[]);
}

/// The part of `exporter verify`'s report that counts here.
#[derive(Deserialize)]
struct Report {
    passed: bool,
    images: usize,
    worst_layer: String,
    layers: Vec<LayerReport>,
    not_recorded: Vec<String>,
}

#[derive(Deserialize)]
struct LayerReport {
    name: String,
    relative_error: f64,
}

fn check(name: &str, import: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("imported.safetensors");
    let source = in_checkout(format!("tests/golden/{name}.pt"));
    let mut arguments = vec!["import", text(&source), "--output", text(&checkpoint)];
    arguments.extend(["--preprocessing", "unit-range"]);
    arguments.extend(import);
    run("trainer", arguments);

    let golden = golden(name);
    let input = golden["input"].clone();
    let recording = folder.path().join("golden.activations.safetensors");
    record(&recording, &checkpoint, &golden);

    let repository = folder.path().join("repository");
    for (model, option) in [("folded", None), ("unfolded", Some("--keep-preactivations"))] {
        let mut arguments = vec!["export", text(&checkpoint), "--repository", text(&repository)];
        arguments.extend(["--model", model]);
        arguments.extend(option);
        run("exporter", arguments);
        verify(name, &repository.join(model).join("1"), &recording, folder.path());
    }

    let server = Server::start(&repository);
    let mut client = Client::connect(&server.grpc);
    for model in ["folded", "unfolded"] {
        let layers = client.layers(model);
        let activations = client.of_tensor(model, &layers, &input);
        let mut worst = (0.0, "");
        for layer in &layers {
            let error = activations[layer].relative_error(&golden[layer]);
            assert!(
                error <= TOLERANCE,
                "{name}, {model}: {layer} differs by {error:e}"
            );
            if error >= worst.0 {
                worst = (error, layer);
            }
        }
        println!(
            "{name}, {model}, ONNX Runtime: {} layers, worst {} {:e}",
            layers.len(),
            worst.1,
            worst.0
        );
        if model == "unfolded" {
            let mut missing: Vec<_> = golden.keys().filter(|name| !layers.contains(name)).collect();
            missing.retain(|&name| name != "input");
            assert!(missing.is_empty(), "{name}: not served: {missing:?}");
        }
    }
}

/// The input and the authors' activations, under the names that users know. What follows the first ReLU of the network
/// and of a block wasn't recorded: it is the positive part of the BatchNorm before it.
fn golden(name: &str) -> BTreeMap<String, Tensor> {
    let path = in_checkout(format!("tests/golden/{name}.activations.safetensors"));
    let mut tensors: BTreeMap<String, Tensor> = tensors::read(&path, "eval.")
        .into_iter()
        // The shortcut's BatchNorm is `downsample`, the logits are `fc`.
        .map(|(module, tensor)| match module.strip_suffix(".downsample.1") {
            Some(block) => (format!("{block}.downsample"), tensor),
            None if module == "logits" => ("fc".into(), tensor),
            None => (module, tensor),
        })
        .collect();
    let rectified: Vec<_> = tensors
        .iter()
        .filter_map(|(name, tensor)| {
            let before = name.strip_suffix("bn1")?;
            let relu = if before.is_empty() { "relu" } else { "relu1" };
            let values = tensor.values.iter().map(|value| value.max(0.0)).collect();
            let shape = tensor.shape.clone();
            Some((format!("{before}{relu}"), Tensor { shape, values }))
        })
        .collect();
    tensors.extend(rectified);
    tensors.insert("input".into(), tensors::read(&path, "")["input"].clone());
    tensors
}

/// Writes the authors' activations as if the trainer had recorded them.
fn record(path: &Path, checkpoint: &Path, golden: &BTreeMap<String, Tensor>) {
    let digest = Checkpoint::open(checkpoint).unwrap().digest().to_owned();
    let tensors: Vec<_> = golden
        .iter()
        .map(|(name, tensor)| (name.clone(), Recorded(tensor.shape.clone(), tensor.to_bytes())))
        .collect();
    Recording::write(path, &digest, &tensors).unwrap();
}

struct Recorded(Vec<usize>, Vec<u8>);

impl View for Recorded {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.1.as_slice().into()
    }

    fn data_len(&self) -> usize {
        self.1.len()
    }
}

fn verify(name: &str, bundle: &Path, recording: &Path, folder: &Path) {
    let report: PathBuf = folder.join("report.json");
    let arguments = ["verify", text(bundle), "--recording", text(recording)];
    run(
        "exporter",
        arguments.into_iter().chain(["--report", text(&report)]),
    );
    let report: Report = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert!(report.passed && report.images > 0);
    assert!(
        report.not_recorded.is_empty(),
        "{name}: not compared: {:?}",
        report.not_recorded
    );
    let worst = report
        .layers
        .iter()
        .find(|layer| layer.name == report.worst_layer);
    println!(
        "{name}, {}, tract: {} layers, worst {} {:e}",
        bundle.parent().unwrap().file_name().unwrap().display(),
        report.layers.len(),
        report.worst_layer,
        worst.unwrap().relative_error
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
