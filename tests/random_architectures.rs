//! Random architectures through trainer and exporter: whatever `Architecture` accepts, the exported graph must compute
//! what libtorch computes, layer by layer.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::path::Path;

use image::{Rgb, RgbImage};
use model::checkpoint::{self, Dtype, TensorView};
use model::network::{TensorRole, TensorSpec};
use model::{
    Architecture, CheckpointHeader, ColorMode, Connectivity, InputShape, Network, Preprocessing, Resize, Stem,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use tests::programs::run;

const CASES: usize = 24;
const IMAGES: usize = 3;

/// The largest error as a fraction of a layer's largest magnitude: float32 sums in another order.
const TOLERANCE: &str = "1e-5";

/// The part of `exporter verify`'s report that counts here.
#[derive(Deserialize)]
struct Report {
    passed: bool,
    images: usize,
    layers: Vec<LayerReport>,
    not_recorded: Vec<String>,
}

#[derive(Deserialize)]
struct LayerReport {
    name: String,
    passed: bool,
}

#[test]
fn exported_graphs_compute_what_libtorch_computes() {
    for case in 0..CASES {
        let mut random = ChaCha8Rng::seed_from_u64(case as u64);
        let (architecture, network) = architecture(case, &mut random);
        // Shown with the failure.
        println!("case {case}: {architecture:?}");
        check(&architecture, &network, &mut random);
    }
}

/// Kernels, stride, pooling and connectivity follow from the case, so that every value of each occurs; sizes are drawn
/// until they fit.
fn architecture(case: usize, random: &mut ChaCha8Rng) -> (Architecture, Network) {
    let connectivity = match case % 6 {
        0 => Connectivity::Convolutional,
        // From 0 to 3, in no step with the kernels below.
        _ => Connectivity::LocallyConnected {
            n_first_conv: case / 4 % 4,
        },
    };
    let stem = Stem {
        kernel_size: [1, 2, 3, 5, 7][case % 5],
        stride: 1 + case / 2 % 2,
        max_pool: case.is_multiple_of(3),
    };
    for _ in 0..1000 {
        let blocks = (0..random.random_range(1..=3)).map(|_| random.random_range(1..=2));
        let architecture = Architecture {
            blocks: blocks.collect(),
            input: InputShape {
                channels: if random.random_bool(0.5) { 3 } else { 1 },
                height: random.random_range(6..=24),
                width: random.random_range(6..=24),
            },
            stem,
            width: random.random_range(1..=5),
            kernel_size: [1, 3, 5, 7][case % 4],
            classes: random.random_range(2..=7),
            connectivity,
        };
        if let Ok(network) = architecture.network() {
            return (architecture, network);
        }
    }
    panic!("no size fits the stem {stem:?}")
}

fn check(architecture: &Architecture, network: &Network, random: &mut ChaCha8Rng) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (checkpoint, recording) = (path("net.safetensors"), path("net.activations.safetensors"));
    write_checkpoint(Path::new(&checkpoint), architecture, network, random);
    let stimuli = path("stimuli");
    write_stimuli(Path::new(&stimuli), random);
    let record = [
        "record",
        &checkpoint,
        "--output",
        &recording,
        "--stimuli",
        &stimuli,
    ];
    run("trainer", record.into_iter().chain(["--device", "cpu"]));

    let repository = path("models");
    for (version, option) in [("1", None), ("2", Some("--keep-preactivations"))] {
        let export = [
            "export",
            &checkpoint,
            "--repository",
            &repository,
            "--model",
            "net",
        ];
        run("exporter", export.into_iter().chain(option));
        let (bundle, report) = (format!("{repository}/net/{version}"), path("report.json"));
        let verify = ["verify", &bundle, "--recording", &recording, "--report", &report];
        run("exporter", verify.into_iter().chain(["--tolerance", TOLERANCE]));

        let report: Report = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        assert!(report.passed && report.layers.iter().all(|layer| layer.passed));
        assert_eq!((report.images, report.not_recorded.len()), (IMAGES, 0));
        let compared: Vec<_> = report.layers.into_iter().map(|layer| layer.name).collect();
        let layers = network.layers().into_iter();
        let exported = layers.filter(|layer| option.is_some() || !layer.kind.is_preactivation());
        let exported: Vec<_> = exported.map(|layer| layer.name).collect();
        assert_eq!(compared, exported);
    }
}

fn write_checkpoint(path: &Path, architecture: &Architecture, network: &Network, random: &mut ChaCha8Rng) {
    let tensors: Vec<_> = network
        .tensors()
        .into_iter()
        .map(|spec| {
            let (dtype, bytes) = tensor(&spec, random);
            (spec, dtype, bytes)
        })
        .collect();
    let views: Vec<_> = tensors
        .iter()
        .map(|(spec, dtype, bytes)| {
            let view = TensorView {
                dtype: *dtype,
                shape: &spec.shape,
                bytes,
            };
            (spec.name.clone(), view)
        })
        .collect();
    let input = architecture.input;
    let header = CheckpointHeader {
        architecture: architecture.clone(),
        preprocessing: Preprocessing {
            color: if input.channels == 1 {
                ColorMode::Grayscale
            } else {
                ColorMode::Rgb
            },
            resize: if random.random_bool(0.5) {
                Resize::Stretch
            } else {
                let size = input.height.max(input.width) + random.random_range(0..4);
                Resize::ShortSide { size }
            },
            mean: (0..input.channels)
                .map(|_| random.random_range(0.2..0.8))
                .collect(),
            std: (0..input.channels)
                .map(|_| random.random_range(0.2..0.5))
                .collect(),
        },
        class_names: Vec::new(),
        provenance: BTreeMap::new(),
    };
    checkpoint::write(path, &header, &views).unwrap();
}

/// Numbers with which activations stay of the order of 1, and with which no two channels are scaled alike.
fn tensor(spec: &TensorSpec, random: &mut ChaCha8Rng) -> (Dtype, Vec<u8>) {
    if spec.role == TensorRole::BatchCount {
        return (Dtype::I64, 5_i64.to_le_bytes().to_vec());
    }
    // He's uniform distribution.
    let symmetric = |fan_in: usize| {
        let bound = (6.0 / fan_in as f32).sqrt();
        -bound..bound
    };
    let range = match (spec.name.rsplit('.').next().unwrap(), spec.shape.as_slice()) {
        ("running_mean" | "bias", _) => -0.7..0.7,
        ("running_var", _) => 0.2..2.5,
        // BatchNorm's γ, a few of them negative.
        ("weight", [_]) => -0.4..2.0,
        ("weights", [_, _, fan_in, _]) => symmetric(*fan_in),
        ("weight", [_, rest @ ..]) => symmetric(rest.iter().product()),
        other => panic!("unknown tensor {other:?}"),
    };
    let values = (0..spec.shape.iter().product()).map(|_: usize| random.random_range(range.clone()));
    (Dtype::F32, values.flat_map(f32::to_le_bytes).collect())
}

/// Colour images of random sizes and pixels.
fn write_stimuli(folder: &Path, random: &mut ChaCha8Rng) {
    std::fs::create_dir(folder).unwrap();
    for index in 0..IMAGES {
        let (width, height) = (random.random_range(6..=40), random.random_range(6..=40));
        let image = RgbImage::from_fn(width, height, |_, _| Rgb(random.random()));
        image.save(folder.join(format!("{index}.png"))).unwrap();
    }
}
