//! `trainer init`: untrained checkpoints, made by the program itself.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use model::checkpoint::f32_values;
use model::{Checkpoint, Connectivity, InputShape, Preprocessing};

/// A small network for images of 32x24 pixels.
const NETWORK: &[&str] = &[
    "--architecture",
    "resnet18",
    "--blocks",
    "1,1",
    "--width",
    "4",
    "--input-size",
    "32x24",
    "--classes",
    "5",
    "--device",
    "cpu",
];

const INPUT: InputShape = InputShape {
    channels: 3,
    height: 32,
    width: 24,
};

fn init(output: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .arg("init")
        .arg("--output")
        .arg(output)
        .args(NETWORK)
        .args(options)
        .output()
        .unwrap()
}

/// Runs the command, which must succeed; the checkpoint, checked against its digest, and the line that was printed.
fn checkpoint(folder: &Path, options: &[&str]) -> (Checkpoint, String) {
    let path: PathBuf = folder.join(format!(
        "untrained{}.safetensors",
        options.concat().replace('/', "-")
    ));
    let output = init(&path, options);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let checkpoint = Checkpoint::open(&path).unwrap();
    checkpoint.verify().unwrap();
    (checkpoint, String::from_utf8(output.stdout).unwrap())
}

/// Runs the command, which must fail; what it says, once nothing is seen to be left behind.
fn refusal(options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = init(&folder.path().join("refused.safetensors"), options);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_checkpoint_holds_the_network_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, line) = checkpoint(folder.path(), &["--n-first-conv", "1", "--seed", "7"]);
    let header = checkpoint.header();
    let architecture = &header.architecture;
    assert_eq!(architecture.input, INPUT);
    assert_eq!(architecture.blocks, [1, 1]);
    assert_eq!((architecture.width, architecture.classes), (4, 5));
    assert_eq!(
        architecture.connectivity,
        Connectivity::LocallyConnected { n_first_conv: 1 }
    );
    assert_eq!(header.preprocessing, Preprocessing::imagenet(INPUT));
    assert_eq!(header.provenance["seed"], 7);
    assert_eq!(header.provenance["trained"], false);
    for spec in checkpoint.network().tensors() {
        assert_eq!(
            checkpoint.tensor(&spec.name).unwrap().shape,
            spec.shape,
            "{}",
            spec.name
        );
    }
    assert_eq!(
        checkpoint.tensor("conv1.weight").unwrap().shape,
        [4, 3, 7, 7],
        "the first convolution shares its weights"
    );
    assert_eq!(
        checkpoint.tensor("layer2.0.conv1.weights").unwrap().shape,
        [4, 3, 36, 8]
    );
    assert!(
        line.contains("32x24 input, 5 classes") && line.contains(checkpoint.digest()),
        "{line}"
    );
}

#[test]
fn the_seed_decides_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |options: &[&str]| checkpoint(folder.path(), options).0.digest().to_owned();
    let first = digest(&["--seed", "1"]);
    assert_eq!(digest(&[]), first, "the seed is 1 unless it is given");
    assert_ne!(digest(&["--seed", "2"]), first);
    assert_ne!(digest(&["--seed", "1", "--initialisation", "conv"]), first);
}

#[test]
fn a_run_file_decides_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("run.toml");
    std::fs::write(&config, "[training]\nseed = 5\n").unwrap();
    let config = config.to_str().unwrap();
    let header = |options: &[&str]| {
        let path = folder.path().join("untrained.safetensors");
        let output = init(&path, options);
        assert!(output.status.success(), "{output:?}");
        let checkpoint = Checkpoint::open(&path).unwrap();
        (
            checkpoint.header().provenance["seed"].clone(),
            checkpoint.digest().to_owned(),
        )
    };
    let of_file = header(&["--config", config]);
    assert_eq!(of_file, header(&["--seed", "5"]));
    assert_eq!(header(&["--config", config, "--seed", "6"]).0, 6);
    std::fs::write(config, "[network]\nstart_from = \"other.safetensors\"\n").unwrap();
    let message = refusal(&["--config", config]);
    assert!(message.contains("`network.start_from`"), "{message}");
}

#[test]
fn conv_initialisation_makes_all_positions_equal() {
    let folder = tempfile::tempdir().unwrap();
    let kernels = |initialisation: &str| {
        let (checkpoint, _) = checkpoint(folder.path(), &["--initialisation", initialisation]);
        let view = checkpoint.tensor("layer1.0.conv1.weights").unwrap();
        let [height, width, fan_in, channels] = *view.shape else {
            panic!("{:?}", view.shape);
        };
        assert_eq!((height, width, fan_in, channels), (8, 6, 36, 4));
        let values = f32_values(view.bytes).collect::<Vec<_>>();
        values
            .chunks(fan_in * channels)
            .map(<[f32]>::to_vec)
            .collect::<Vec<_>>()
    };
    let shared = kernels("conv");
    assert_eq!(shared.len(), 48);
    assert!(shared.iter().all(|kernel| *kernel == shared[0]));
    assert!(shared[0].iter().any(|&weight| weight != shared[0][0]));
    let random = kernels("random");
    assert!(random[1..].iter().all(|kernel| *kernel != random[0]));
}

#[test]
fn grey_images_and_class_names_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("names.txt");
    std::fs::write(&names, "one\ntwo\nthree\nfour\nfive\n").unwrap();
    let options = ["--channels", "1", "--class-names", names.to_str().unwrap()];
    let (checkpoint, _) = checkpoint(folder.path(), &options);
    let header = checkpoint.header();
    let input = InputShape { channels: 1, ..INPUT };
    assert_eq!(header.preprocessing, Preprocessing::unit_range(input));
    assert_eq!(header.class_names, ["one", "two", "three", "four", "five"]);
}

#[test]
fn what_contradicts_itself_is_refused_before_anything_is_written() {
    let names = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(names.path(), "one\n").unwrap();
    let message = refusal(&["--class-names", names.path().to_str().unwrap()]);
    assert!(message.contains("1 class names for 5 classes"), "{message}");
    let message = refusal(&["--channels", "2"]);
    assert!(
        message.contains("the network's input has 2 channels"),
        "{message}"
    );
}

#[test]
fn a_checkpoint_has_the_usual_extension() {
    let folder = tempfile::tempdir().unwrap();
    let output = init(&folder.path().join("lc.pt"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("lc.pt should end in .safetensors"), "{message}");
}
