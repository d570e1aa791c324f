//! `trainer plan` tells what `trainer train` then needs, and `trainer train` refuses what doesn't fit.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const NETWORK: [&str; 4] = ["--width", "8", "--input-size", "112"];
const STEP: [&str; 6] = ["--batch-size", "16", "--sleep-every", "2", "--device", "cpu"];

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .output()
        .unwrap()
}

fn plan(options: &[&str]) -> Value {
    let arguments = [&["plan", "--json", "--classes", "10"], options].concat();
    let output = trainer(&arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn peak(options: &[&str]) -> f64 {
    plan(options)["peak"].as_f64().unwrap()
}

/// Sixteen images to train on and as many to test, in IDX format.
fn data(folder: &Path) {
    for stem in ["train", "t10k"] {
        let images = [
            &[0, 0, 8, 3, 0, 0, 0, 16, 0, 0, 0, 28, 0, 0, 0, 28][..],
            &[100; 16 * 784],
        ]
        .concat();
        let labels: Vec<u8> = [0, 0, 8, 1, 0, 0, 0, 16]
            .into_iter()
            .chain((0..16).map(|image| image % 10))
            .collect();
        fs::write(folder.join(format!("{stem}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{stem}-labels-idx1-ubyte")), labels).unwrap();
    }
    fs::write(folder.join("class_names.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
}

/// Weights dominate here as they do in large networks; libtorch's own share is about half.
#[test]
fn the_plan_is_what_training_needs() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let output = folder.path().join("run.safetensors");
    let (data, output) = (folder.path().to_str().unwrap(), output.to_str().unwrap());
    let fixed = [
        "train",
        "--channels",
        "3",
        "--epochs",
        "2",
        "--data",
        data,
        "--output",
        output,
    ];
    let trained = trainer(&[&fixed[..], &NETWORK, &STEP].concat());
    assert!(trained.status.success(), "{trained:?}");
    let log = fs::read_to_string(folder.path().join("run.log.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let found = last["peak_memory"].as_f64().unwrap();
    let planned = peak(&[&NETWORK[..], &STEP].concat());
    assert!(
        (0.7..1.5).contains(&(planned / found)),
        "planned {planned}, needed {found}"
    );
}

#[test]
fn every_option_changes_the_plan_as_it_changes_training() {
    let with = |options: &[&str]| peak(&[&NETWORK[..], &STEP, options].concat());
    let ordinary = with(&[]);
    assert!(with(&["--moments", "bf16"]) < ordinary);
    assert!(with(&["--recompute-activations"]) < ordinary);
    assert!(with(&["--optimizer", "sgd"]) < with(&["--moments", "bf16"]));
    assert!(
        with(&["--micro-batch", "4"]) > ordinary,
        "gradients of the parts are in memory"
    );
    assert!(
        with(&["--precision", "fp16"]) > ordinary,
        "scaled gradients are in memory"
    );
    let anti_hebbian = ["--sleep", "anti-hebbian"];
    assert!(with(&anti_hebbian) >= ordinary);
}

/// The figures of a full network are known: 1,813,561,344 locally connected weights.
#[test]
fn a_full_network_fits_a_card_of_24_gigabytes() {
    let full = ["--batch-size", "16", "--moments", "bf16", "--precision", "bf16"];
    let plan = plan(&full);
    let weights = plan["held"][0].clone();
    assert_eq!(weights["name"], "weights");
    let note = weights["note"].as_str().unwrap();
    assert!(note.contains("1813561344 of them locally connected"), "{note}");
    let peak = peak(&[&full[..], &["--device", "cuda", "--memory-limit", "24GB"]].concat());
    assert!(peak < 20e9, "{peak}");
}

/// Whether the code checks for overflow or not.
#[test]
fn numbers_that_no_machine_has_do_not_fit() {
    let refused = |options: &[&str]| {
        let fixed = ["plan", "--json", "--memory-limit", "20GiB", "--device", "cpu"];
        let output = trainer(&[&fixed[..], &NETWORK, options].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(plan["peak"].as_u64(), Some(u64::MAX), "{options:?}");
    };
    for images in ["9000000000000000", "18446744073709551615"] {
        refused(&["--batch-size", images]);
        refused(&["--batch-size", images, "--micro-batch", "7"]);
        refused(&["--batch-size", images, "--recompute-activations"]);
    }
    let sleep = ["--sleep-every", "18446744073709551615", "--sleep", "anti-hebbian"];
    let plan = plan(&[&NETWORK[..], &sleep, &["--sleep-batch", "18446744073709551615"]].concat());
    assert_eq!(plan["step"]["sleep"], 0);
}

#[test]
fn what_training_would_refuse_is_not_planned() {
    let said = |options: &[&str]| {
        let refused = trainer(&[&["plan"][..], options].concat());
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
        String::from_utf8(refused.stderr).unwrap()
    };
    let unstable = said(&["--preset", "lc-sleep10-conv", "--sleep", "anti-hebbian"]);
    assert!(
        unstable.contains("the sleep phase would drive the weights of `layer4"),
        "{unstable}"
    );
    let single = said(&["--batch-size", "1", "--width", "8", "--input-size", "32"]);
    assert!(
        single.contains("`layer4.0.bn1` has one position") && single.contains("--batch-size"),
        "{single}"
    );
}

#[test]
fn what_does_not_fit_is_refused_with_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run.safetensors");
    let train = [
        "train",
        "--output",
        output.to_str().unwrap(),
        "--memory-limit",
        "170MiB",
    ];
    let refused = trainer(&[&train[..], &NETWORK, &STEP].concat());
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    for part in [
        "training needs",
        "170.0 MiB are allowed (--memory-limit)",
        "moments",
        "peak",
    ] {
        assert!(said.contains(part), "`{part}` isn't in: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let said = |limit| {
        let refused = trainer(
            &[
                &["plan", "--memory-limit", limit, "--device", "cpu"][..],
                &STEP[..2],
            ]
            .concat(),
        );
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        String::from_utf8(refused.stderr).unwrap()
    };
    assert!(
        said("20GiB").contains("--moments bf16 would need 1"),
        "{}",
        said("20GiB")
    );
    assert!(
        said("5GiB").contains("A narrower network or another device"),
        "{}",
        said("5GiB")
    );
    let wrong = trainer(&["plan", "--memory-limit", "much"]);
    assert_eq!(wrong.status.code(), Some(2));
}
