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
    let third = path("third.safetensors");
    succeed(&[
        "train",
        "--config",
        text(&config),
        "--output",
        text(&third),
        "--seed",
        "10",
    ]);
    let digest = |name: &str| Checkpoint::open(&path(name)).unwrap().digest().to_owned();
    assert_ne!(
        digest("third.safetensors"),
        digest("first.safetensors"),
        "flags override the file"
    );
    assert!(
        fs::read_to_string(path("third.toml"))
            .unwrap()
            .contains("seed = 10")
    );
}

#[test]
fn the_file_that_a_run_was_read_from_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let own = path("own.toml");
    let written = "# Mine.\n[network]\narchitecture = \"resnet-cifar\"\nblocks = [1]\nwidth = 2\n\
                   [data]\ninput_size = [8, 8]\nhold_out = 9000\n[training]\nepochs = 1\nbatch_size = 500\n\
                   [compute]\ndevice = \"cpu\"\nthreads = 1\n";
    fs::write(&own, written).unwrap();
    for (output, options) in [
        (None, ["--seed", "10"]),
        (Some("own.safetensors"), ["--epochs", "2"]),
    ] {
        let mut command = vec!["train", "--config", text(&own)];
        command.extend(options);
        let output = output.map(path);
        if let Some(output) = &output {
            command.extend(["--output", text(output)]);
        }
        let message = refusal(&command);
        assert!(
            message.contains("another checkpoint with --output") && message.contains("there, "),
            "{message}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    succeed(&["train", "--config", text(&own)]);
    assert_eq!(fs::read_to_string(&own).unwrap(), written);
    succeed(&["train", "--config", text(&own), "--resume"]);
    assert_eq!(fs::read_to_string(&own).unwrap(), written);
    // Beside a checkpoint of another name, every setting is spelled out.
    let other = path("other.safetensors");
    succeed(&[
        "train",
        "--config",
        text(&own),
        "--output",
        text(&other),
        "--epochs",
        "0",
    ]);
    assert!(
        fs::read_to_string(path("other.toml"))
            .unwrap()
            .contains("weight_decay = 0.01")
    );
}

/// Some images in IDX format, in three classes.
fn write_images(folder: &Path, count: u8) -> String {
    fs::create_dir_all(folder).unwrap();
    for set in ["train", "t10k"] {
        let mut pixels = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 8, 0, 0, 0, 8];
        pixels.extend((0..usize::from(count) * 64).map(|pixel| (pixel * 7919 % 251) as u8));
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, count];
        labels.extend((0..count).map(|image| image % 3));
        fs::write(folder.join(format!("{set}-images-idx3-ubyte")), pixels).unwrap();
        fs::write(folder.join(format!("{set}-labels-idx1-ubyte")), labels).unwrap();
    }
    text(folder).to_owned()
}

#[test]
fn a_run_goes_on_with_its_own_images_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run.safetensors");
    let [first, moved, fewer] = [("first", 20), ("moved", 20), ("fewer", 19)]
        .map(|(name, count)| write_images(&folder.path().join(name), count));
    let network = "train --architecture resnet-cifar --blocks 1 --width 2 --epochs 1 --batch-size 5 --hold-out 4 --device cpu \
                   --threads 1";
    let mut command: Vec<&str> = network.split_whitespace().collect();
    command.extend(["--output", text(&output), "--data", &first]);
    succeed(&command);
    let resume = |options: &[&str]| {
        let mut command = vec!["train", "--output", text(&output), "--resume"];
        command.extend(options);
        trainer(&command)
    };
    for (options, part) in [
        (["--hold-out", "5"], "`data.hold_out`: 4 there, 5 here"),
        (["--hold-out-seed", "1"], "`data.hold_out_seed`: 0 there, 1 here"),
        (["--width", "3"], "`network.width`: 2 there, 3 here"),
        (["--data", &fewer], "other images"),
    ] {
        let refused = resume(&options);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{options:?}");
        assert!(said.contains(part), "{said}");
    }
    let went_on = resume(&["--data", &moved, "--workers", "1", "--skip-corrupt"]);
    let said = String::from_utf8_lossy(&went_on.stderr).into_owned();
    assert!(went_on.status.success(), "{said}");
    assert!(said.contains("the images are those of"), "{said}");
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
        message.contains("begun.safetensors holds another network: its width is 2, wanted is 3"),
        "{message}"
    );
    assert!(!other.exists());
}
