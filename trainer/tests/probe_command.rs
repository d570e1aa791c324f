//! `trainer probe`, by the program itself.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .args(["--device", "cpu", "--threads", "1"])
        .output()
        .unwrap()
}

fn run(arguments: &[&str]) -> String {
    let output = trainer(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// An untrained network for the images that the program carries.
fn network(folder: &Path) -> String {
    let path = folder.join("untrained.safetensors").to_str().unwrap().to_owned();
    let options =
        "--architecture resnet-cifar --blocks 1,1 --width 4 --input-size 28 --channels 1 --classes 10";
    let arguments: Vec<&str> = ["init", "--output", &path, "--initialisation", "conv"]
        .into_iter()
        .chain(options.split(' '))
        .collect();
    run(&arguments);
    path
}

const EPOCHS: [&str; 6] = ["--epochs", "4", "--batch-size", "200", "--learning-rate", "3e-3"];

fn probe(checkpoint: &str, options: &[&str]) -> Value {
    let arguments: Vec<&str> = ["probe", "--checkpoint", checkpoint, "--json"]
        .into_iter()
        .chain(EPOCHS)
        .chain(options.iter().copied())
        .collect();
    serde_json::from_str(&run(&arguments)).unwrap()
}

#[test]
fn a_readout_of_random_features_tells_clothes_apart_whatever_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = network(folder.path());
    let report = probe(&checkpoint, &["--layer", "layer2"]);
    let result = &report["probes"][0];
    // layer2 has 8 channels of 14x14 pixels.
    assert_eq!(result["shape"], serde_json::json!([8, 14, 14]));
    assert_eq!(
        (&result["layer"], &result["features"]),
        (&"layer2".into(), &1568.into())
    );
    assert_eq!(result["cached_images"], 10_000);
    assert_eq!(
        (&result["train"]["images"], &result["test"]["images"]),
        (&10_000.into(), &2_000.into())
    );
    let number =
        |report: &Value, images: &str, figure: &str| report["probes"][0][images][figure].as_f64().unwrap();
    let top1 = number(&report, "test", "top1");
    assert!(top1 > 0.7, "{report:#}");
    assert!(number(&report, "test", "top5") > 0.95);
    assert!(number(&report, "train", "loss") < number(&report, "test", "loss"));

    assert_eq!(
        probe(&checkpoint, &["--layer", "layer2"]),
        report,
        "the same options give the same result"
    );
    // Half of the features don't fit, so that they are computed again and again.
    let bytes = 5_000 * 1568 * 4;
    let partly = probe(&checkpoint, &["--layer", "layer2", "--cache", &bytes.to_string()]);
    assert_eq!(partly["probes"][0]["cached_images"], 5_000);
    for images in ["train", "test"] {
        let difference = number(&partly, images, "loss") - number(&report, images, "loss");
        assert!(difference.abs() < 1e-3, "{difference} on {images}");
    }
    // A readout that decays away knows nothing.
    let decayed = probe(&checkpoint, &["--layer", "layer2", "--weight-decay", "300"]);
    assert!(number(&decayed, "train", "loss") > 2.0 * number(&report, "train", "loss"));
}

#[test]
fn several_layers_are_the_lines_of_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = network(folder.path());
    let layers = ["--layer", "avgpool", "--layer", "layer1.0.relu1"];
    let arguments: Vec<&str> = [
        "probe",
        "--checkpoint",
        &checkpoint,
        "--epochs",
        "1",
        "--batch-size",
        "20000",
    ]
    .into_iter()
    .chain(layers)
    .collect();
    let table = run(&arguments);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].starts_with("layer ") && lines[0].contains("test top-1"),
        "{table}"
    );
    assert!(
        lines[1].starts_with("avgpool ") && lines[1].contains(" 8 "),
        "{table}"
    );
    assert!(
        lines[2].starts_with("layer1.0.relu1 ") && lines[2].contains(" 3136 "),
        "{table}"
    );
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{table}");
}

/// An image folder of two classes, three images each to train on and one to test on.
fn write_folder(folder: &Path) -> String {
    for (split, images) in [("train", 3_u8), ("val", 1)] {
        for (class, shade) in [("dark", 0_u8), ("light", 200)] {
            let class = folder.join(split).join(class);
            std::fs::create_dir_all(&class).unwrap();
            for number in 0..images {
                let image = image::RgbImage::from_pixel(28, 28, image::Rgb([shade + number; 3]));
                image.save(class.join(format!("{number}.png"))).unwrap();
            }
        }
    }
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_batch_of_corrupt_images_is_left_out_and_classes_are_the_data_sets() {
    let folder = tempfile::tempdir().unwrap();
    // Of ten classes.
    let checkpoint = network(folder.path());
    let set = write_folder(&folder.path().join("set"));
    std::fs::write(folder.path().join("set/train/dark/1.png"), "broken").unwrap();
    std::fs::write(folder.path().join("set/val/light/0.png"), "broken").unwrap();
    for cache in ["2GiB", "0", "100"] {
        let options = "--layer avgpool --skip-corrupt --epochs 2 --batch-size 1 --json --cache";
        let mut arguments = vec!["probe", "--checkpoint", &checkpoint, "--data", &set];
        arguments.extend(options.split(' '));
        arguments.push(cache);
        let report: Value = serde_json::from_str(&run(&arguments)).unwrap();
        let result = &report["probes"][0];
        assert_eq!(
            (&result["train"]["images"], &result["test"]["images"]),
            (&5.into(), &1.into()),
            "{cache}"
        );
        assert!(result["train"]["loss"].as_f64().unwrap().is_finite());
    }
    // More classes than the network has are no hindrance: the readout is new.
    for class in 0..12 {
        for split in ["train", "val"] {
            let class = folder
                .path()
                .join("many")
                .join(split)
                .join(format!("class {class}"));
            std::fs::create_dir_all(&class).unwrap();
            image::RgbImage::new(28, 28).save(class.join("0.png")).unwrap();
        }
    }
    let many = folder.path().join("many");
    let report = probe(
        &checkpoint,
        &["--layer", "avgpool", "--data", many.to_str().unwrap()],
    );
    // All images are alike: the readout can do no better than the number of classes allows.
    let loss = report["probes"][0]["test"]["loss"].as_f64().unwrap();
    assert!((loss - 12_f64.ln()).abs() < 1e-3, "{loss}");
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = network(folder.path());
    let refused = |options: &[&str]| {
        let arguments: Vec<&str> = ["probe", "--checkpoint", &checkpoint]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let output = trainer(&arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(&["--layer", "layer3"]);
    assert!(
        said.contains("no layer `layer3`") && said.contains("layer2.0.bn1"),
        "{said}"
    );
    let said = refused(&["--layer", "fc", "--learning-rate", "1e38", "--epochs", "3"]);
    assert!(said.contains("a lower learning rate may help"), "{said}");
}
