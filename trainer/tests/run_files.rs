//! Run files: what `trainer train` writes beside a checkpoint repeats the run, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use model::Checkpoint;

/// A small network with everything that draws random numbers, on a part of the embedded images.
const RUN: &[&str] = &[
    "--architecture",
    "resnet-cifar",
    "--blocks",
    "1",
    "--width",
    "2",
    "--input-size",
    "8",
    "--initialisation",
    "conv",
    "--deviation",
    "0.5",
    "--sleep-every",
    "20",
    "--sleep",
    "anti-hebbian",
    "--sleep-iterations",
    "3",
    "--augment",
    "padded-crop:1,flip",
    "--hold-out",
    "9000",
    "--moments",
    "bf16",
    "--schedule",
    "cosine",
    "--epochs",
    "2",
    "--batch-size",
    "50",
    "--learning-rate",
    "3e-3",
    "--seed",
    "9",
    "--device",
    "cpu",
    "--threads",
    "1",
];

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .output()
        .unwrap()
}

fn succeed(arguments: &[&str]) {
    let output = trainer(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn refusal(arguments: &[&str]) -> String {
    let output = trainer(arguments);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_file_beside_a_checkpoint_repeats_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (first, second) = (path("first.safetensors"), path("second.safetensors"));
    let mut command = vec!["train", "--output", text(&first)];
    command.extend(RUN);
    succeed(&command);
    let config = path("first.toml");
    succeed(&["train", "--config", text(&config), "--output", text(&second)]);
    assert!(
        fs::read(&first).unwrap() == fs::read(&second).unwrap(),
        "other bytes"
    );
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        fs::read_to_string(path("second.toml")).unwrap()
    );

    // The checkpoint's name comes from the file's, but nothing is overwritten that isn't named.
    let message = refusal(&["train", "--config", text(&config)]);
    assert!(
        message.contains("first.safetensors is there already"),
        "{message}"
    );
    let moved = path("third.toml");
    fs::copy(&config, &moved).unwrap();
    succeed(&["train", "--config", text(&moved), "--seed", "10"]);
    let digest = |name: &str| Checkpoint::open(&path(name)).unwrap().digest().to_owned();
    assert_ne!(
        digest("third.safetensors"),
        digest("first.safetensors"),
        "flags override the file"
    );
    assert!(fs::read_to_string(&moved).unwrap().contains("seed = 10"));
}

#[test]
fn a_finished_run_resumes_from_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run.safetensors");
    let mut command = vec!["train", "--output", text(&output)];
    command.extend(RUN);
    succeed(&command);
    let before = fs::read(&output).unwrap();
    succeed(&["train", "--output", text(&output), "--resume"]);
    assert!(fs::read(&output).unwrap() == before);
    let message = refusal(&[
        "train",
        "--output",
        text(&output),
        "--resume",
        "--learning-rate",
        "1",
    ]);
    assert!(message.contains("resume with the same options"), "{message}");
}

#[test]
fn what_is_no_run_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("run.toml");
    fs::write(&config, "[training]\nepoch = 1\n").unwrap();
    let message = refusal(&["train", "--config", text(&config)]);
    assert!(
        message.contains("unknown key `training.epoch`; the nearest known one is `training.epochs`"),
        "{message}"
    );
    let message = refusal(&[
        "train",
        "--preset",
        "lc-sleep10-con",
        "--output",
        "run.safetensors",
    ]);
    assert!(message.contains("the nearest is `lc-sleep10-conv`"), "{message}");
    fs::write(&config, "[network]\ndeviation = 0.1\n").unwrap();
    let message = refusal(&["train", "--config", text(&config)]);
    assert!(message.contains("--initialisation conv"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn training_begins_with_the_weights_of_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (begun, same, other) = (
        path("begun.safetensors"),
        path("same.safetensors"),
        path("other.safetensors"),
    );
    let mut command = vec!["train", "--output", text(&begun)];
    command.extend(RUN);
    succeed(&command);
    let from = ["--start-from", text(&begun)];
    // The run file of the first run has all its options.
    let config = path("begun.toml");
    let begin = |output: &Path, options: &[&str]| {
        let mut command = vec!["train", "--config", text(&config), "--output", text(output)];
        command.extend(from);
        command.extend(options);
        trainer(&command)
    };
    let untrained = begin(&same, &["--epochs", "0"]);
    assert!(
        untrained.status.success(),
        "{}",
        String::from_utf8_lossy(&untrained.stderr)
    );
    let weights = |path: &Path| {
        let checkpoint = Checkpoint::open(path).unwrap();
        let name = "layer1.0.conv1.weights";
        checkpoint.tensor(name).unwrap().bytes.to_vec()
    };
    assert!(weights(&same) == weights(&begun));
    let refused = begin(&other, &["--width", "3"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("begun.safetensors is another one than this run's"),
        "{message}"
    );
    assert!(!other.exists());
}
