//! Checkpoints as files: what is written is read back, and whatever is wrong with a file is said.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use model::checkpoint::{self, Dtype, METADATA_KEY, PendingFile, TensorView, f32_values, write_tensors};
use model::network::TensorRole;
use model::{
    Architecture, Checkpoint, CheckpointError, CheckpointHeader, Connectivity, InputShape, Preprocessing,
    Recording,
};
use tempfile::TempDir;

fn header() -> CheckpointHeader {
    let input = InputShape {
        channels: 1,
        height: 8,
        width: 8,
    };
    let lc = Connectivity::LocallyConnected { n_first_conv: 1 };
    CheckpointHeader {
        architecture: Architecture::resnet_cifar(1, input, 2, 3, lc),
        preprocessing: Preprocessing::unit_range(input),
        class_names: ["cat", "dog", "0".repeat(64).as_str()]
            .map(str::to_owned)
            .to_vec(),
        provenance: BTreeMap::from([("seed".to_owned(), 7.into())]),
    }
}

/// Tensors of the header's architecture with numbers counting up.
fn tensors() -> Vec<(String, Dtype, Vec<usize>, Vec<u8>)> {
    let network = header().architecture.network().unwrap();
    let mut next = 0.0_f32;
    network
        .tensors()
        .into_iter()
        .map(|spec| {
            let count: usize = spec.shape.iter().product();
            let (dtype, bytes) = match spec.role {
                TensorRole::BatchCount => (Dtype::I64, 5_i64.to_le_bytes().to_vec()),
                _ => {
                    let values = (0..count).flat_map(|_| {
                        next += 0.5;
                        next.to_le_bytes()
                    });
                    (Dtype::F32, values.collect())
                }
            };
            (spec.name, dtype, spec.shape, bytes)
        })
        .collect()
}

fn views(tensors: &[(String, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<(String, TensorView<'_>)> {
    let mut views = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        views.push((
            name.clone(),
            TensorView {
                dtype: *dtype,
                shape,
                bytes,
            },
        ));
    }
    views
}

fn written() -> (TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    let digest = checkpoint::write(&path, &header(), &views(&tensors())).unwrap();
    (folder, path, digest)
}

/// The error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn refusal(path: &Path) -> String {
    chain(&Checkpoint::open(path).unwrap_err())
}

#[test]
fn what_is_written_is_read_back() {
    let (folder, path, digest) = written();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(*checkpoint.header(), header());
    assert_eq!(checkpoint.digest(), digest);
    checkpoint.verify().unwrap();
    for (name, dtype, shape, bytes) in tensors() {
        let view = checkpoint.tensor(&name).unwrap();
        assert_eq!(
            (view.dtype, view.shape, view.bytes),
            (dtype, shape.as_slice(), bytes.as_slice()),
            "{name}"
        );
    }
    let bias = checkpoint.tensor("fc.bias").unwrap();
    assert_eq!(f32_values(bias.bytes).len(), 3);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing else is left in the folder"
    );
}

#[test]
fn writing_the_same_twice_gives_the_same_bytes() {
    let (first, second) = (written(), written());
    assert_eq!(fs::read(&first.1).unwrap(), fs::read(&second.1).unwrap());
}

#[test]
fn the_digest_changes_with_weights_and_architecture_but_not_with_provenance() {
    let (folder, _, digest) = written();
    let path = folder.path().join("other.safetensors");
    let mut changed = tensors();
    let last = changed.len() - 1;
    changed[last].3[0] ^= 1;
    assert_ne!(
        checkpoint::write(&path, &header(), &views(&changed)).unwrap(),
        digest
    );
    let mut renamed = header();
    renamed.class_names[0] = "cow".into();
    assert_ne!(
        checkpoint::write(&path, &renamed, &views(&tensors())).unwrap(),
        digest
    );
    let mut later = header();
    later.provenance.insert("epoch".into(), 3.into());
    assert_eq!(
        checkpoint::write(&path, &later, &views(&tensors())).unwrap(),
        digest
    );
}

#[test]
fn a_truncated_file_is_refused_at_any_length() {
    let (_folder, path, _) = written();
    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(97).chain([1, 7, 8, 9, bytes.len() - 1]) {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains("network.safetensors") && message.contains("not a complete"),
            "{message}"
        );
    }
}

#[test]
fn a_changed_byte_is_found() {
    let (_folder, path, _) = written();
    let bytes = fs::read(&path).unwrap();
    for position in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[position] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        let found = Checkpoint::open(&path).and_then(|checkpoint| checkpoint.verify());
        // A byte of the provenance may change unseen: it is no part of what the digest protects.
        let header = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned();
        let provenance = header.find("provenance").unwrap()..header.find("\"}").unwrap() + 2;
        assert!(
            found.is_err() || provenance.contains(&position),
            "byte {position} changed unseen"
        );
    }
}

#[test]
fn another_format_version_is_named() {
    let (_folder, path, _) = written();
    let json = r#"{"format_version":99,"from":"the future"}"#.to_owned();
    write_tensors(&path, (METADATA_KEY, json), &views(&tensors()))
        .unwrap()
        .publish()
        .unwrap();
    assert!(refusal(&path).contains("format version 99; this program reads version 1"));
}

#[test]
fn files_of_other_programs_are_told_apart() {
    let (_folder, path, _) = written();
    write_tensors(&path, ("format", "pt".into()), &views(&tensors()))
        .unwrap()
        .publish()
        .unwrap();
    assert!(refusal(&path).contains("without Ventral's metadata"));
    fs::write(&path, "a text").unwrap();
    assert!(refusal(&path).contains("not a complete safetensors file"));
    assert!(refusal(&path.with_extension("missing")).contains("can't open the file"));
}

#[test]
fn tensors_that_do_not_fit_the_architecture_are_named() {
    let (_folder, path, _) = written();
    let mut missing = tensors();
    missing.retain(|(name, ..)| name != "layer2.0.bn1.running_var");
    checkpoint::write(&path, &header(), &views(&missing)).unwrap();
    assert!(refusal(&path).contains("`layer2.0.bn1.running_var` is missing"));

    let mut extra = tensors();
    extra.push(("layer9.weight".into(), Dtype::F32, vec![1], vec![0; 4]));
    checkpoint::write(&path, &header(), &views(&extra)).unwrap();
    assert!(refusal(&path).contains("unexpected tensor `layer9.weight`"));

    let mut reshaped = tensors();
    for (name, _, shape, _) in &mut reshaped {
        if name == "layer1.0.conv1.weights" {
            shape.swap(2, 3);
        }
    }
    checkpoint::write(&path, &header(), &views(&reshaped)).unwrap();
    let message = refusal(&path);
    assert!(
        message.contains("is F32 [8, 8, 2, 18]") && message.contains("needs F32 [8, 8, 18, 2]"),
        "{message}"
    );
}

#[test]
fn a_header_that_contradicts_itself_is_not_written() {
    let (_folder, path, digest) = written();
    let mut names = header();
    names.class_names.pop();
    let error = checkpoint::write(&path, &names, &views(&tensors())).unwrap_err();
    assert!(chain(&error).contains("2 class names for 3 classes"));
    assert_eq!(
        Checkpoint::open(&path).unwrap().digest(),
        digest,
        "the old checkpoint is still there"
    );
}

#[test]
fn a_file_that_can_not_be_written_leaves_the_old_one() {
    let (_folder, path, digest) = written();
    // A folder where the temporary file should be: creating the file fails, whoever asks.
    fs::create_dir(PendingFile::for_path(&path).temporary()).unwrap();
    let error = checkpoint::write(&path, &header(), &views(&tensors())).unwrap_err();
    assert!(
        matches!(error, CheckpointError::At { ref source, .. } if matches!(**source, CheckpointError::Io { .. }))
    );
    assert_eq!(Checkpoint::open(&path).unwrap().digest(), digest);
}

#[test]
fn what_a_killed_program_left_is_overwritten() {
    let (folder, path, digest) = written();
    fs::write(PendingFile::for_path(&path).temporary(), "half a checkpoint").unwrap();
    assert_eq!(
        checkpoint::write(&path, &header(), &views(&tensors())).unwrap(),
        digest
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn recordings_are_read_back_and_told_from_checkpoints() {
    let (folder, checkpoint, _) = written();
    let path = folder.path().join("recording.safetensors");
    let bytes = [0; 2 * 64 * 4];
    let input = TensorView {
        dtype: Dtype::F32,
        shape: &[2, 1, 8, 8],
        bytes: &bytes,
    };
    let fc = TensorView {
        dtype: Dtype::F32,
        shape: &[2, 3],
        bytes: &bytes[..24],
    };
    Recording::write(
        &path,
        "abc",
        &[("input".to_owned(), input), ("fc".to_owned(), fc)],
    )
    .unwrap();
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.checkpoint_digest(), "abc");
    assert_eq!(recording.input().unwrap().shape, [2, 1, 8, 8]);
    assert_eq!(recording.layers().keys().copied().collect::<Vec<_>>(), ["fc"]);
    assert!(chain(&Recording::open(&checkpoint).unwrap_err()).contains("no recording of activations"));

    let other = TensorView {
        dtype: Dtype::F32,
        shape: &[3, 2],
        bytes: &bytes[..24],
    };
    Recording::write(
        &path,
        "abc",
        &[("input".to_owned(), input), ("fc".to_owned(), other)],
    )
    .unwrap();
    assert!(chain(&Recording::open(&path).unwrap_err()).contains("`fc` is F32 [3, 2]"));
}
