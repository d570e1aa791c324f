//! `trainer train` refuses sleep phases that make no sense before it begins.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::process::Command;

/// What the program says; it must fail and write nothing.
fn refusal(options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args([
            "train",
            "--architecture",
            "resnet-cifar",
            "--width",
            "16",
            "--device",
            "cpu",
        ])
        .arg("--output")
        .arg(folder.path().join("refused.safetensors"))
        .args(options)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_form_without_a_frequency_is_refused() {
    let message = refusal(&["--sleep", "anti-hebbian"]);
    assert!(message.contains("--sleep-every"), "{message}");
}

#[test]
fn options_of_the_other_form_are_refused() {
    let message = refusal(&["--sleep-every", "10", "--sleep-gamma", "1e-3"]);
    assert!(
        message.contains("--sleep-gamma needs --sleep anti-hebbian"),
        "{message}"
    );
}

#[test]
fn a_phase_that_would_drive_weights_apart_is_refused() {
    let message = refusal(&[
        "--sleep-every",
        "10",
        "--sleep",
        "anti-hebbian",
        "--sleep-batch",
        "16",
    ]);
    assert!(
        message.contains("`layer3.") && message.contains("576 inputs"),
        "{message}"
    );
    assert!(message.contains("below 0.0540, not 0.1"), "{message}");
}
