//! The figures of a run: the log's lines and TensorBoard's event files, of one run and of one that is resumed.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn train(folder: &Path, options: &[&str]) {
    let arguments = "train --architecture resnet-cifar --blocks 1 --width 2 --batch-size 2500 --precision fp32 --device cpu \
                     --threads 1 --epochs 2 --sleep-every 2";
    let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments.split_whitespace())
        .arg("--output")
        .arg(folder.join("run.safetensors"))
        .arg("--tensorboard")
        .arg(folder.join("events"))
        .args(options)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("run.log.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn event_files(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder.join("events")).unwrap();
    files
        .filter(|file| {
            let file = file.as_ref().unwrap();
            file.file_name()
                .to_str()
                .unwrap()
                .starts_with("events.out.tfevents.")
                && file.metadata().unwrap().len() > 0
        })
        .count()
}

#[test]
fn every_figure_is_in_the_log_once() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &[]);
    let whole = lines(folder.path());
    assert_eq!(whole.len(), 2 * (4 + 1));
    assert_eq!(event_files(folder.path()), 1);
    for (index, line) in whole.iter().enumerate() {
        let (epoch, step) = (index / 5 + 1, index % 5 + 1);
        assert_eq!(line["epoch"], epoch);
        let figures = if step < 5 {
            assert_eq!(line["step"], step);
            let hits = |figure: &str| line[figure].as_f64().unwrap();
            assert!(
                0.0 <= hits("top1") && hits("top1") <= hits("top5") && hits("top5") <= 1.0,
                "{line}"
            );
            vec!["loss", "learning_rate", "images_per_second"]
        } else {
            for figure in ["top1", "top5", "loss"] {
                assert!(line["test"][figure].is_f64(), "{line}");
            }
            assert_eq!(line["weight_snr"].as_object().unwrap().len(), 3, "{line}");
            vec!["learning_rate", "images_per_second", "memory", "peak_memory"]
        };
        for figure in figures {
            assert!(line[figure].as_f64().unwrap() > 0.0, "{figure}: {line}");
        }
    }

    // As if the program had been killed in the last epoch, within a line, and then told to go on.
    let log = folder.path().join("run.log.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, format!("{text}{{\"event\":\"st")).unwrap();
    train(folder.path(), &["--resume"]);
    assert_eq!(lines(folder.path()), whole);
    assert_eq!(event_files(folder.path()), 2);
}
