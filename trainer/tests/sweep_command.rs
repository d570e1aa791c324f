//! `trainer sweep`, by the program itself: killed at any moment, it goes on and ends as if it hadn't been.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use model::Checkpoint;

/// Two networks, two learning rates to choose from, two seeds: eight short runs.
fn sweep(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.args(["sweep", "--output-dir"]).arg(folder);
    command.args([
        "--presets",
        "conv,lc-sleep10-conv",
        "--learning-rates",
        "1e-3,1e-2",
    ]);
    command.args(["--seeds", "1,2", "--choice-epochs", "1", "--choice-seeds", "1"]);
    command.args(["--architecture", "resnet-cifar", "--blocks", "1", "--width", "2"]);
    command.args(["--input-size", "8", "--epochs", "2", "--batch-size", "200"]);
    command.args(["--augment", "padded-crop:1", "--device", "cpu", "--threads", "1"]);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file of a kind below a folder, by its path in it.
fn files(folder: &Path, name: &str) -> BTreeMap<PathBuf, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() == name {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), path);
            }
        }
    }
    found
}

fn digests(folder: &Path) -> BTreeMap<PathBuf, String> {
    let checkpoints = files(folder, "run.safetensors").into_iter();
    checkpoints
        .map(|(name, path)| (name, Checkpoint::open(&path).unwrap().digest().to_owned()))
        .collect()
}

/// Runs the sweep and kills it once `seen` sees something, which is returned.
fn kill_once<T>(folder: &Path, seen: impl Fn() -> Option<T>) -> T {
    let mut process = sweep(folder).stderr(Stdio::null()).spawn().unwrap();
    let mut found = None;
    for _ in 0..60_000 {
        found = if folder.exists() { seen() } else { None };
        if found.is_some() {
            break;
        }
        if let Some(status) = process.try_wait().unwrap() {
            panic!("the sweep ended by itself: {status}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(found.is_some(), "what was waited for never came");
    found.unwrap()
}

/// The folder of a run that is tested, in the sweep's, which has a checkpoint to go on from and isn't finished; another one
/// than those that are known.
fn half_done(folder: &Path, known: &BTreeMap<PathBuf, String>) -> Option<PathBuf> {
    let states = files(folder, "run.training.safetensors").into_keys();
    let folders = states.filter_map(|name| name.parent().map(Path::to_owned));
    folders
        .filter(|name| name.starts_with("final") && !known.contains_key(name))
        .find(|name| !folder.join(name).join("outcome.json").exists())
}

fn first_line(run: &Path) -> String {
    let log = fs::read_to_string(run.join("run.log.jsonl")).unwrap();
    log.lines().next().unwrap().to_owned()
}

#[test]
fn a_killed_sweep_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let output = sweep(&whole).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let expected = digests(&whole);
    assert_eq!(expected.len(), 8, "{expected:?}");

    // Killed once it has begun to choose, then within runs that are tested, between their first and their last epoch.
    kill_once(&killed, || files(&killed, "run.log.jsonl").into_keys().next());
    let mut first_lines = BTreeMap::new();
    for _ in 0..2 {
        let name = kill_once(&killed, || half_done(&killed, &first_lines));
        let line = first_line(&killed.join(&name));
        first_lines.insert(name, line);
    }
    let modified = |name: &str| -> BTreeMap<PathBuf, SystemTime> {
        let files = files(&killed, name).into_iter();
        files
            .map(|(name, path)| (name, fs::metadata(path).unwrap().modified().unwrap()))
            .collect()
    };
    let before = modified("outcome.json");
    assert!(before.len() >= 3, "{before:?}");
    let output = sweep(&killed).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("finished before"), "{}", said(&output));
    assert_eq!(digests(&killed), expected);
    let after = modified("outcome.json");
    assert_eq!(after.len(), 8);
    for (name, time) in before {
        assert_eq!(after[&name], time, "{} was done again", name.display());
    }
    // The first line has the speed of the first step, which is never the same again.
    for (name, line) in first_lines {
        assert_eq!(
            first_line(&killed.join(&name)),
            line,
            "{} began again",
            name.display()
        );
    }
    for name in [
        "table.csv",
        "table.md",
        "choices.csv",
        "choices.md",
        "accuracy.svg",
        "snr.svg",
        "loss.svg",
    ] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert!(read(&killed) == read(&whole), "{name} differs");
    }
    for name in ["accuracy.png", "snr.png", "loss.png"] {
        assert!(image::open(killed.join(name)).unwrap().width() > 400);
    }
    assert!(
        files(&killed, "run.training.safetensors").is_empty(),
        "it is for resuming alone"
    );

    let table = fs::read_to_string(killed.join("table.md")).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(
        table.contains("held out, top-1 %") && table.contains("| 69.9 |"),
        "{table}"
    );
    // Every run is a run of its own, which `trainer train` repeats.
    let (name, config) = files(&killed, "run.toml").into_iter().next_back().unwrap();
    let again = folder.path().join("again.safetensors");
    let repeated = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(["train", "--config"])
        .arg(config)
        .arg("--output")
        .arg(&again)
        .output()
        .unwrap();
    assert!(repeated.status.success(), "{}", said(&repeated));
    let digest = Checkpoint::open(&again).unwrap().digest().to_owned();
    assert_eq!(digest, expected[&name.with_extension("safetensors")]);
}

#[test]
fn a_folder_of_another_sweep_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let one = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["sweep", "--output-dir"]).arg(folder.path());
        command.args([
            "--presets",
            "conv",
            "--architecture",
            "resnet-cifar",
            "--blocks",
            "1",
            "--width",
            "2",
        ]);
        command.args([
            "--input-size",
            "8",
            "--batch-size",
            "500",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]);
        command.args(options).output().unwrap()
    };
    let output = one(&["--epochs", "1"]);
    assert!(output.status.success(), "{}", said(&output));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("| `conv` | conv | – | conv | 1e-3 | 1 |"),
        "{table}"
    );
    let output = one(&["--epochs", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let message = said(&output);
    assert!(
        message.contains("`training.epochs`: 1 there, 2 here"),
        "{message}"
    );
    // What decides no result may be another.
    let events = folder.path().join("events");
    let output = one(&[
        "--epochs",
        "1",
        "--seeds",
        "1,2",
        "--skip-corrupt",
        "--checkpoint-every",
        "3",
        "--recompute-activations",
        "--tensorboard",
        events.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("finished before"), "a sweep may grow");
    let written = fs::read_dir(events.join("final/conv/learning-rate-1e-3/seed-2")).unwrap();
    assert_eq!(written.count(), 1);
}

#[test]
fn a_network_whose_rates_all_diverge_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.args(["sweep", "--output-dir"]).arg(folder.path());
    command.args([
        "--presets",
        "conv",
        "--learning-rates",
        "1e30,1e31",
        "--optimizer",
        "sgd",
    ]);
    command.args(["--architecture", "resnet-cifar", "--blocks", "1", "--width", "2"]);
    command.args(["--input-size", "8", "--epochs", "1", "--batch-size", "500"]);
    command.args(["--device", "cpu", "--threads", "1"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("all runs of `conv` diverged"),
        "{}",
        said(&output)
    );
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(
        read("table.md").contains("| all diverged |"),
        "{}",
        read("table.md")
    );
    assert_eq!(
        read("choices.csv"),
        "preset,learning_rate,seed,validation_top1\nconv,1e30,1,diverged\nconv,1e31,1,diverged\n"
    );
}

#[test]
fn a_learning_rate_that_diverges_is_not_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("sweep.toml");
    let text = "presets = [\"conv\"]\nlearning_rates = [1e30, 1e-3]\n\
                [choice]\nhold_out = 500\n\
                [run.network]\narchitecture = \"resnet-cifar\"\nblocks = [1]\nwidth = 2\n\
                [run.data]\ninput_size = [8, 8]\n\
                [run.training]\nepochs = 1\nbatch_size = 500\n\
                [run.optimizer]\nalgorithm = \"sgd\"\n\
                [run.compute]\ndevice = \"cpu\"\nthreads = 1\n";
    fs::write(&config, text).unwrap();
    let results = folder.path().join("results");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.args(["sweep", "--output-dir"]).arg(&results);
        command.arg("--config").arg(&config).output().unwrap()
    };
    let output = run();
    assert!(output.status.success(), "{}", said(&output));
    let table = fs::read_to_string(results.join("table.csv")).unwrap();
    assert!(
        table
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("conv,conv,,conv,1e-3,0."),
        "{table}"
    );
    let run_file = results.join("choice/conv/learning-rate-1e-3/seed-1/run.toml");
    assert!(fs::read_to_string(run_file).unwrap().contains("hold_out = 500"));

    fs::write(&config, text.replace("learning_rates", "learning_rate")).unwrap();
    let output = run();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("learning_rates"), "{}", said(&output));
}
