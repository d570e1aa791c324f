use super::*;
use image::{ImageFormat, Rgb, RgbImage};
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

fn png(red: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(4, 4, Rgb([red, 0, 0]));
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn write_shard(path: PathBuf, files: &[(&str, Vec<u8>)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.finish().unwrap();
}

/// Two shards to train on and one to test on.
fn write_set(folder: &Path) {
    let text = |text: &str| text.as_bytes().to_vec();
    write_shard(
        folder.join("train-0.tar"),
        &[
            ("a/0.cls", text("1\n")),
            ("a/0.png", png(10)),
            ("a/1.json", text(r#"{"label": 2, "caption": "a tench"}"#)),
            ("a/1.jpg", png(11)),
            ("readme.txt", text("belongs to no image")),
        ],
    );
    let long = format!("{}/2.png", "long".repeat(40));
    write_shard(
        folder.join("train-1.tar"),
        &[(&long, png(12)), (&long.replace("png", "cls"), text("0"))],
    );
    write_shard(
        folder.join("val-0.tar"),
        &[("0.png", png(13)), ("0.cls", text("2"))],
    );
}

fn read(folder: &Path) -> Result<DataSet, DataError> {
    DataSet::open(Some(folder))
}

#[test]
fn samples_are_had_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path());
    let data = read(folder.path()).unwrap();
    assert_eq!(data.kind, DataSetKind::Shards);
    assert_eq!(data.class_names, ["0", "1", "2"]);
    assert_eq!((data.train.len(), data.test.len()), (3, 1));
    let labels: Vec<usize> = (0..3).map(|index| data.train.label(index)).collect();
    assert_eq!(labels, [1, 2, 0]);
    for index in [2, 0, 1, 0] {
        let image = data.train.image(index, ColorMode::Rgb).unwrap();
        assert_eq!((image.width, image.data[0]), (4, 10 + index as u8));
    }
    assert!(data.train.name(1).starts_with("a/1.jpg in ") && data.train.name(1).ends_with("train-0.tar"));
    fs::write(folder.path().join("classnames.txt"), "a\nb\nc\n").unwrap();
    assert_eq!(read(folder.path()).unwrap().class_names, ["a", "b", "c"]);
    fs::write(folder.path().join("classnames.txt"), "a\nb\n").unwrap();
    assert!(
        read(folder.path())
            .unwrap_err()
            .to_string()
            .contains("only 2 names")
    );
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let text = |text: &str| text.as_bytes().to_vec();
    let said = |files: &[(&str, Vec<u8>)]| {
        write_set(folder.path());
        write_shard(folder.path().join("train-1.tar"), files);
        read(folder.path()).unwrap_err().to_string()
    };
    assert!(said(&[("0.png", png(0))]).contains("0.png has no label"));
    assert!(said(&[("0.cls", text("1"))]).contains("the sample 0 has a label, but no image"));
    assert!(said(&[("0.png", png(0)), ("0.cls", text("cat"))]).contains("0.cls isn't the number of a class"));
    assert!(said(&[("0.png", png(0)), ("0.cls", text("-1"))]).contains("isn't the number of a class"));
    assert!(said(&[("0.png", png(0)), ("0.json", text("{"))]).contains("0.json isn't JSON"));
    let without = [("0.png", png(0)), ("0.json", text(r#"{"label": "cat"}"#))];
    assert!(said(&without).contains(r#"0.json has no "label""#));
    assert!(said(&[("0.png", png(0)), ("0.jpg", png(0))]).contains("images of the same sample"));
    assert!(said(&[("n01440764.tar", text("shards in shards"))]).contains("holds no samples"));
    assert!(said(&[]).contains("holds no samples"));
}

#[test]
fn a_label_that_no_memory_could_name_is_refused() {
    for (name, label) in [
        ("0.cls", "4294967295"),
        ("0.cls", "1000000"),
        ("0.json", r#"{"label": 4294967295}"#),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_set(folder.path());
        let files = [("0.png", png(0)), (name, label.as_bytes().to_vec())];
        write_shard(folder.path().join("train-1.tar"), &files);
        let said = read(folder.path()).unwrap_err().to_string();
        assert!(
            said.contains("of 0.png is no number of a class: at most 1000000"),
            "{said}"
        );
    }
}

#[test]
fn json_is_read_as_far_as_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let json = |text: &str| text.as_bytes().to_vec();
    write_set(folder.path());
    write_shard(
        folder.path().join("train-1.tar"),
        &[
            ("0.png", png(0)),
            ("0.cls", json("1")),
            ("0.json", json(r#"{"label": "a tench"}"#)),
            ("1.png", png(0)),
            (
                "1.json",
                json(r#"{"label": "a tench", "cls": 2, "label_name": [1]}"#),
            ),
            ("2.json", json(r#"["no", "object"]"#)),
            ("2.cls", json("0")),
            ("2.png", png(0)),
            ("3.json", json("{")),
        ],
    );
    let data = read(folder.path()).unwrap();
    let labels: Vec<usize> = (2..data.train.len())
        .map(|index| data.train.label(index))
        .collect();
    assert_eq!(labels, [1, 2, 0]);
}

#[test]
fn a_shard_that_ends_too_early_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path());
    let path = folder.path().join("val-0.tar");
    let whole = fs::read(&path).unwrap();
    for length in [100, 512, 540] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(read(folder.path()).is_err(), "{length}");
    }
}
