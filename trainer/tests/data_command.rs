//! `trainer data`, and training with image folders, by the program itself.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use serde_json::Value;

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// An image folder of two classes, eight images of 20x16 pixels each to train on and two to test on.
fn write_set(folder: &Path) {
    for (split, images) in [("train", 8), ("val", 2)] {
        for (class, id) in ["n01440764", "n01443537"].into_iter().enumerate() {
            let class_folder = folder.join(split).join(id);
            fs::create_dir_all(&class_folder).unwrap();
            for number in 0..images {
                let pixel = |x: u32, y: u32| {
                    Rgb([
                        (x * 12) as u8,
                        (y * 15) as u8,
                        (class as u32 * 200 + number) as u8,
                    ])
                };
                let image = RgbImage::from_fn(20, 16, pixel);
                image.save(class_folder.join(format!("{number}.jpg"))).unwrap();
            }
        }
    }
}

fn break_one(folder: &Path) {
    let path = folder.join("train/n01440764/3.jpg");
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 20]).unwrap();
}

#[test]
fn a_data_set_is_described() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path());
    let path = folder.path().to_str().unwrap();
    let output = trainer(&["data", path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for line in [
        ": image folder",
        "  classes     2: tench, Tinca tinca; goldfish, Carassius auratus",
        "  images      16, 8 a class",
        "  formats     16 JPEG, ",
        "  size        20x16",
        "  unreadable  0",
    ] {
        assert!(table.contains(line), "`{line}` isn't in:\n{table}");
    }
    break_one(folder.path());
    let output = trainer(&["data", path, "--json", "--workers", "3"]);
    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let train = &json["splits"][0];
    assert_eq!(
        (train["images"].as_u64(), train["formats"]["JPEG"].as_u64()),
        (Some(16), Some(15))
    );
    let unreadable = &train["unreadable"][0];
    assert!(
        unreadable["image"]
            .as_str()
            .unwrap()
            .ends_with("train/n01440764/3.jpg")
    );
    assert_eq!(unreadable["reason"], "the image ends too early");
    assert_eq!(unreadable["corrupt"], true);
    assert_eq!(trainer(&["data", path, "--skip-corrupt"]).status.code(), Some(0));
    // Training can't leave out what can't be read at all.
    let dangling = folder.path().join("val/n01440764/9.jpg");
    std::os::unix::fs::symlink("nowhere.jpg", &dangling).unwrap();
    let output = trainer(&["data", path, "--skip-corrupt"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("1 files can't be read at all"), "{said}");
    fs::remove_file(dangling).unwrap();
    let output = trainer(&["data", folder.path().join("train").to_str().unwrap()]);
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("looked for were: an image folder"),
        "{said}"
    );
}

#[test]
fn a_corrupt_image_ends_training_or_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("set");
    write_set(&set);
    break_one(&set);
    let checkpoint = folder.path().join("run.safetensors");
    let train = |more: &[&str]| {
        let mut arguments = vec![
            "train",
            "--architecture",
            "resnet-cifar",
            "--blocks",
            "1",
            "--width",
            "2",
        ];
        arguments.extend([
            "--epochs",
            "1",
            "--device",
            "cpu",
            "--threads",
            "1",
            "--batch-size",
            "4",
            "--input-size",
            "12",
        ]);
        arguments.extend([
            "--augment",
            "random-resized-crop",
            "--data",
            set.to_str().unwrap(),
        ]);
        arguments.extend(["--output", checkpoint.to_str().unwrap()]);
        arguments.extend(more);
        trainer(&arguments)
    };
    let output = train(&[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("train/n01440764/3.jpg") && said.contains("the image ends too early"),
        "{said}"
    );
    assert!(!checkpoint.exists());
    let output = train(&["--skip-corrupt", "--workers", "2"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("train/n01440764/3.jpg is left out"), "{said}");
    assert!(said.contains("1 of 16 training images"), "{said}");
    // Of the images to test on one is broken, too.
    let path = set.join("val/n01443537/0.jpg");
    fs::write(path, "broken").unwrap();
    let eval = [
        "eval",
        checkpoint.to_str().unwrap(),
        "--data",
        set.to_str().unwrap(),
    ];
    let output = trainer(&[&eval[..], &["--skip-corrupt", "--device", "cpu"]].concat());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("1 of 4 test images were left out"), "{said}");
    let header = model::Checkpoint::open(&checkpoint).unwrap().header().clone();
    assert_eq!(
        header.class_names,
        ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    );
    assert_eq!(
        header.provenance["options"]["augmentation"]["kind"],
        "random-resized-crop"
    );
    let output = trainer(&[
        "train",
        "--output",
        checkpoint.to_str().unwrap(),
        "--augment",
        "crop",
    ]);
    assert!(
        text(&output.stderr).contains("`crop` is none of"),
        "{}",
        text(&output.stderr)
    );
}
