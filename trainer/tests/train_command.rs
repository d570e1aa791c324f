//! `trainer train`: what it refuses and how it stops, by the program itself.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::process::{Command, Output};

fn train(output: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args([
            "train",
            "--architecture",
            "resnet-cifar",
            "--blocks",
            "1",
            "--width",
            "2",
        ])
        .args(["--epochs", "1", "--device", "cpu", "--threads", "1", "--output"])
        .arg(output)
        .args(options)
        .output()
        .unwrap()
}

fn refused(options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = train(&folder.path().join("run.safetensors"), options);
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_loss_that_is_not_finite_stops_training() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("run.safetensors");
    let output = train(&checkpoint, &["--optimizer", "sgd", "--learning-rate", "1e30"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said
        .lines()
        .find(|line| line.starts_with("error: the loss is"))
        .unwrap();
    for part in [
        " at step ",
        " of epoch 1 ",
        "1000000000000000000000000000000",
        "checkpoint is not written yet",
    ] {
        assert!(line.contains(part), "`{part}` isn't in: {line}");
    }
    assert!(!checkpoint.exists());
}

#[test]
fn momentum_is_for_gradient_descent() {
    let said = refused(&["--momentum", "0.9"]);
    assert!(said.contains("--momentum is for --optimizer sgd"), "{said}");
    let said = refused(&["--optimizer", "sgd", "--momentum", "1"]);
    assert!(said.contains("from 0 to below 1"), "{said}");
    let said = refused(&["--optimizer", "adamax"]);
    assert!(said.contains("adamw, adam, sgd"), "{said}");
}
