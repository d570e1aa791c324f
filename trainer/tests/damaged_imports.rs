//! Damaged PyTorch checkpoints: every one is refused with a reason, and nothing is written.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::error::Error as _;
use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;

use trainer::import::{ImportOptions, ImportPreprocessing, import};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

fn original() -> Vec<u8> {
    std::fs::read(support::path("lc1conv_resnet_cifar_w4_s16.pt")).unwrap()
}

/// Imports bytes; the causes of the error, one a line, or nothing where they are accepted.
fn refusal(bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, output) = (
        folder.path().join("damaged.pt"),
        folder.path().join("out.safetensors"),
    );
    std::fs::write(&source, bytes).unwrap();
    let options = ImportOptions {
        input_size: None,
        preprocessing: ImportPreprocessing::UnitRange,
        class_names: Vec::new(),
    };
    let Err(error) = import(&source, &output, &options) else {
        assert!(output.exists());
        return None;
    };
    assert_eq!(files(folder.path()), ["damaged.pt"], "something was written");
    let mut causes = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    assert!(causes[0].contains("damaged.pt"), "{causes:?}");
    Some(causes.join("\n"))
}

fn files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The checkpoint with the bytes of one entry changed, its checksums right again.
fn with_entry(suffix: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(original())).unwrap();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file(name.clone(), options).unwrap();
        let bytes = if name.ends_with(suffix) {
            change(bytes)
        } else {
            bytes
        };
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn the_whole_file_is_accepted() {
    assert_eq!(refusal(&original()), None);
    assert_eq!(refusal(&with_entry("nothing", |bytes| bytes)), None);
}

#[test]
fn a_truncated_file_is_refused_at_any_length() {
    let bytes = original();
    for length in (0..bytes.len())
        .step_by(bytes.len() / 50)
        .chain([1, 4, bytes.len() - 1])
    {
        assert!(
            refusal(&bytes[..length]).is_some(),
            "{length} bytes were accepted"
        );
    }
}

#[test]
fn a_changed_byte_of_a_tensor_is_found_by_its_checksum() {
    let mut bytes = original();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let reason = refusal(&bytes).unwrap();
    assert!(reason.contains("damaged"), "{reason}");
}

#[test]
fn a_tensor_that_is_too_short_is_refused() {
    let reason = refusal(&with_entry("data/0", |bytes| bytes[..4].to_vec())).unwrap();
    assert!(reason.contains("reaches past its storage"), "{reason}");
}

#[test]
fn a_hostile_pickle_is_refused_by_name_and_not_run() {
    // What `pickle.dumps` makes of an object whose `__reduce__` returns `(os.system, ("touch /tmp/x",))`.
    let hostile = b"\x80\x02cposix\nsystem\nX\x0c\0\0\0touch /tmp/x\x85R.";
    let reason = refusal(&with_entry("data.pkl", |_| hostile.to_vec())).unwrap();
    assert!(reason.contains("posix.system"), "{reason}");
}

#[test]
fn a_pickle_with_an_unknown_instruction_is_refused() {
    let reason = refusal(&with_entry("data.pkl", |_| b"\x80\x02\xff.".to_vec())).unwrap();
    assert!(reason.contains("0xff"), "{reason}");
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let reason = refusal(b"a text file").unwrap();
    assert!(reason.contains("torch.save"), "{reason}");
    let reason = refusal(&with_entry("data.pkl", |_| b"\x80\x02}.".to_vec())).unwrap();
    assert!(!reason.is_empty());
}
