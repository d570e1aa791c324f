//! Every preset builds at full size and trains at small size.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::process::Command;

use model::{Checkpoint, Connectivity, Convolution, InputShape};
use trainer::presets::ALL;
use trainer::run::ConnectivityChoice::{self, Conv, Lc};
use trainer::run::Family;
use trainer::run::InitialisationChoice::{self, Conv as Same, Random};

const INPUT: InputShape = InputShape {
    channels: 3,
    height: 224,
    width: 224,
};

/// A row: name; connectivity, with layers that stay convolutional; sleep; initialisation; learning rate; top-1 in per cent and
/// average Brain-Score.
type Row = (
    &'static str,
    (ConnectivityChoice, usize),
    Option<usize>,
    InitialisationChoice,
    Option<f64>,
    (Option<f64>, f64),
);

/// The paper's Table 1, with its learning rates.
const PAPER: [Row; 13] = [
    ("conv", (Conv, 0), None, Same, Some(0.001), (Some(69.9), 0.426)),
    (
        "lc-random",
        (Lc, 0),
        None,
        Random,
        Some(0.0005),
        (Some(44.9), 0.383),
    ),
    (
        "lc-sleep1-random",
        (Lc, 0),
        Some(1),
        Random,
        Some(0.0001),
        (Some(62.0), 0.409),
    ),
    (
        "lc-sleep10-random",
        (Lc, 0),
        Some(10),
        Random,
        Some(0.0005),
        (Some(60.9), 0.418),
    ),
    (
        "lc-sleep100-random",
        (Lc, 0),
        Some(100),
        Random,
        Some(0.0005),
        (Some(56.5), 0.424),
    ),
    ("lc-conv", (Lc, 0), None, Same, Some(0.0001), (Some(46.1), 0.374)),
    (
        "lc-sleep1-conv",
        (Lc, 0),
        Some(1),
        Same,
        Some(0.001),
        (Some(64.4), 0.433),
    ),
    (
        "lc-sleep10-conv",
        (Lc, 0),
        Some(10),
        Same,
        Some(0.001),
        (Some(63.0), 0.429),
    ),
    (
        "lc-sleep100-conv",
        (Lc, 0),
        Some(100),
        Same,
        Some(0.001),
        (Some(58.7), 0.416),
    ),
    (
        "lc-conv1-random",
        (Lc, 1),
        None,
        Random,
        Some(0.0001),
        (Some(52.5), 0.370),
    ),
    (
        "lc-conv1-conv",
        (Lc, 1),
        None,
        Same,
        Some(0.0001),
        (Some(52.5), 0.379),
    ),
    ("conv-untrained", (Conv, 0), None, Same, None, (None, 0.227)),
    ("lc-untrained", (Lc, 0), None, Random, None, (None, 0.137)),
];

#[test]
fn the_table_is_that_of_the_paper() {
    for (row, preset) in PAPER.into_iter().zip(ALL) {
        let (name, (connectivity, n_first_conv), sleep, initialisation, rate, (top1, brain_score)) = row;
        assert_eq!(preset.name, name);
        assert_eq!((preset.learning_rate, preset.top1), (rate, top1), "{name}");
        assert_eq!(preset.brain_score, Some(brain_score), "{name}");
        let run = preset.run();
        let network = &run.network;
        assert_eq!(network.architecture, Family::Resnet18, "{name}");
        assert_eq!(
            (network.connectivity, network.n_first_conv, network.initialisation),
            (connectivity, n_first_conv, initialisation),
            "{name}"
        );
        assert_eq!(run.sleep.every, sleep, "{name}");
        if let Some(rate) = rate {
            assert_eq!(run.optimizer.learning_rate, rate, "{name}");
        }
        assert_eq!(run.optimizer.weight_decay, 0.01, "{name}");
        assert_eq!(
            run.training.epochs,
            if rate.is_some() { 200 } else { 0 },
            "{name}"
        );
    }
    assert!(ALL[PAPER.len()..].iter().all(|preset| !preset.is_in_table()));
}

#[test]
fn every_preset_builds_at_full_size() {
    for preset in ALL {
        let run = preset.run();
        run.check().unwrap();
        let architecture = run.network.architecture(run.data.input(INPUT), 1000);
        let network = architecture.network().unwrap();
        assert_eq!(network.input, INPUT, "{}", preset.name);
        // torchvision's ResNet-18 without biases has 11,689,512 parameters.
        let stages = network.stages.len();
        match architecture.connectivity {
            Connectivity::Convolutional if stages == 4 => assert_eq!(network.parameter_count(), 11_689_512),
            Connectivity::Convolutional => assert_eq!((stages, architecture.blocks.len()), (2, 2)),
            Connectivity::LocallyConnected { n_first_conv } => {
                let local: Vec<_> = network
                    .convolutions()
                    .map(|layer| layer.locally_connected)
                    .collect();
                assert_eq!(local.iter().filter(|local| !**local).count(), n_first_conv);
                assert!(local[n_first_conv..].iter().all(|local| *local));
                if stages == 4 && n_first_conv == 0 {
                    let weights: usize = network.convolutions().map(Convolution::weight_count).sum();
                    assert_eq!(weights, 1_813_561_344);
                }
            }
        }
        assert_eq!(run.training.batch_size, 128);
        assert_eq!(run.optimizer.weight_decay, 1e-2);
        if preset.is_trained() {
            assert_eq!(run.training.epochs, 200);
            let factors = [0, 99, 100, 150].map(|epoch| run.training.schedule.factor(epoch, 200));
            assert_eq!(factors, [1.0, 1.0, 0.25, 0.0625]);
        }
    }
}

/// Ten images to train on and two to test on, in the IDX format.
fn write_images(folder: &Path) {
    for (set, count) in [("train", 10_u8), ("t10k", 2)] {
        let mut pixels = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
        pixels.extend((0..usize::from(count) * 28 * 28).map(|pixel| (pixel * 7919 % 251) as u8));
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, count];
        labels.extend((0..count).map(|image| image % 5));
        std::fs::write(folder.join(format!("{set}-images-idx3-ubyte")), pixels).unwrap();
        std::fs::write(folder.join(format!("{set}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn every_preset_trains_two_steps_at_small_size() {
    let data = tempfile::tempdir().unwrap();
    write_images(data.path());
    for preset in ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command
            .args(["train", "--preset", preset.name, "--output"])
            .arg(&path);
        command.arg("--data").arg(data.path());
        command.args(["--input-size", "32", "--width", "2", "--batch-size", "5"]);
        command.args(["--device", "cpu", "--threads", "1"]);
        if preset.is_trained() {
            command.args(["--epochs", "1"]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", preset.name);
        let checkpoint = Checkpoint::open(&path).unwrap();
        checkpoint.verify().unwrap();
        assert_eq!(checkpoint.header().provenance["preset"], preset.name);
        let log = path.with_extension("log.jsonl");
        if preset.is_trained() {
            let lines = std::fs::read_to_string(log).unwrap();
            let steps = lines.lines().filter(|line| line.contains("\"event\":\"step\""));
            assert_eq!(steps.count(), 2, "{}", preset.name);
        } else {
            assert!(!log.exists(), "{}", preset.name);
        }
    }
}

#[test]
fn presets_are_listed_with_the_results_of_the_paper() {
    let run = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .arg("presets")
            .args(options)
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&[]);
    let row = table
        .lines()
        .find(|line| line.starts_with("lc-sleep10-conv "))
        .unwrap();
    let columns: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        columns,
        [
            "lc-sleep10-conv",
            "LC",
            "10",
            "conv",
            "1e-3",
            "63.0",
            "0.429",
            "–"
        ]
    );
    let listed: Vec<serde_json::Value> = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(listed.len(), ALL.len());
    assert_eq!(listed[0]["name"], "conv");
    assert_eq!(listed[0]["top1"], 69.9);
    assert_eq!(listed[12]["learning_rate"], serde_json::Value::Null);
}
