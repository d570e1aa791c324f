//! `trainer eval`, by the program itself: classes of a data set and of a network.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .args(["--device", "cpu", "--threads", "1"])
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Thirty images to train on and as many to test on in three classes; `names` in the order of the labels, which are those of
/// the images of `a`, `b` and `c` in turn.
fn write_set(folder: &Path, labels: [u8; 3], names: Option<&str>) -> String {
    fs::create_dir_all(folder).unwrap();
    for set in ["train", "t10k"] {
        let mut pixels = vec![0, 0, 8, 3, 0, 0, 0, 30, 0, 0, 0, 8, 0, 0, 0, 8];
        pixels.extend((0..30_usize * 64).map(|pixel| (pixel * 7919 % 251) as u8));
        let mut classes = vec![0, 0, 8, 1, 0, 0, 0, 30];
        classes.extend((0..30).map(|image| labels[image % 3]));
        fs::write(folder.join(format!("{set}-images-idx3-ubyte")), pixels).unwrap();
        fs::write(folder.join(format!("{set}-labels-idx1-ubyte")), classes).unwrap();
    }
    if let Some(names) = names {
        fs::write(folder.join("class_names.txt"), names).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

#[test]
fn classes_are_matched_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let names = at("names.txt");
    fs::write(&names, "a\nb\nc\nd\n").unwrap();
    let checkpoint = at("network.safetensors");
    let checkpoint = checkpoint.to_str().unwrap();
    let network = "--architecture resnet-cifar --blocks 1 --width 2 --input-size 8 --channels 1 --classes 4 --class-names";
    let mut init = vec!["init", "--output", checkpoint];
    init.extend(network.split(' '));
    init.push(names.to_str().unwrap());
    let made = trainer(&init);
    assert!(made.status.success(), "{}", text(&made.stderr));

    let eval = |set: &str| trainer(&["eval", checkpoint, "--data", set]);
    let result = |set: &str| {
        let output = eval(set);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let line = text(&output.stdout);
        let (figures, _) = line.split_once(" on ").unwrap();
        (figures.to_owned(), text(&output.stderr))
    };
    let (expected, _) = result(&write_set(&at("same"), [0, 1, 2], Some("a\nb\nc\n")));
    let (other, said) = result(&write_set(&at("other"), [2, 0, 1], Some("b\nc\na\n")));
    assert_eq!(other, expected);
    assert!(said.contains("matched by their names"), "{said}");
    let (numbers, said) = result(&write_set(&at("numbers"), [0, 1, 2], None));
    assert_eq!(numbers, expected);
    assert!(said.contains("labels 0 to 2 are taken for those"), "{said}");

    let output = eval(&write_set(&at("cats"), [0, 1, 2], Some("a\ncat\nc\n")));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("class 1: `cat` in the data set, `b` in the network"),
        "{said}"
    );
}
