//! What is wrong is said, and nothing is left behind.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use exporter::bundle::{Bundle, PendingBundle};
use exporter::export::export;
use exporter::selection::LayerSelection;
use exporter::{ExportError, VerifyError};
use model::Recording;
use proto::onnx::TensorProto;

use crate::support::{Fixture, chain, entries, read_model, small, verify_within, write_model};

/// Changes the first constant of a bundle that has external data.
fn change_constant(bundle: &Path, change: impl FnOnce(&mut TensorProto)) {
    let mut model = read_model(bundle);
    let graph = model.graph.as_mut().unwrap();
    let external = |tensor: &&mut TensorProto| !tensor.external_data.is_empty();
    change(graph.initializer.iter_mut().find(external).unwrap());
    write_model(bundle, &model);
}

fn set_external(key: &str, value: &str) -> impl FnOnce(&mut TensorProto) {
    let (key, value) = (key.to_owned(), value.to_owned());
    move |tensor| {
        let entry = tensor.external_data.iter_mut().find(|entry| entry.key == key);
        entry.unwrap().value = value;
    }
}

fn exported() -> (Fixture, std::path::PathBuf) {
    let fixture = small();
    let bundle = fixture.export(LayerSelection::default());
    (fixture, bundle)
}

#[test]
fn hostile_external_data_is_refused() {
    let outside = ["../1/model.onnx.data", "/etc/hostname", "nested/model.onnx.data"];
    let cases = outside
        .map(|location| ("location", location, "no plain file name"))
        .into_iter()
        .chain([
            ("offset", "1073741824", "lies outside `model.onnx.data`"),
            ("length", "4", "its shape"),
            ("length", "18446744073709551615", "lies outside"),
        ]);
    for (key, value, reason) in cases {
        let (fixture, bundle) = exported();
        let recording = fixture.record(|_| ());
        change_constant(&bundle, set_external(key, value));
        let error = verify_within(1e-4, &bundle, &recording).unwrap_err();
        assert!(matches!(error, VerifyError::Bundle(_)));
        let text = chain(&error);
        assert!(text.contains(reason) && text.contains("model.onnx"), "{text}");
    }
}

#[test]
fn a_truncated_data_file_is_refused() {
    let (_fixture, bundle) = exported();
    let data = bundle.join("model.onnx.data");
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
    let error = chain(&Bundle::open(&bundle).unwrap_err());
    assert!(error.contains("lies outside"), "{error}");
    fs::remove_file(&data).unwrap();
    let error = chain(&Bundle::open(&bundle).unwrap_err());
    assert!(error.contains("`model.onnx.data`"), "{error}");
}

#[test]
fn what_is_no_bundle_is_refused() {
    let (_fixture, bundle) = exported();
    let model = read_model(&bundle);
    let mut bare = model.clone();
    bare.metadata_props.clear();
    write_model(&bundle, &bare);
    assert!(chain(&Bundle::open(&bundle).unwrap_err()).contains("without Ventral's manifest"));

    let mut renamed = model.clone();
    renamed.graph.as_mut().unwrap().output[0].name = "other".into();
    write_model(&bundle, &renamed);
    let error = chain(&Bundle::open(&bundle).unwrap_err());
    assert!(error.contains("`other` in the place of `bn1`"), "{error}");

    fs::write(bundle.join("model.onnx"), [0xff; 64]).unwrap();
    assert!(chain(&Bundle::open(&bundle).unwrap_err()).contains("not an ONNX file"));
    let absent = bundle.join("absent");
    let error = chain(&Bundle::open(&absent).unwrap_err());
    assert!(
        error.contains("absent") && error.contains("can't open"),
        "{error}"
    );
}

#[test]
fn one_changed_byte_of_the_weights_is_seen() {
    let (fixture, bundle) = exported();
    let recording = fixture.record(|_| ());
    assert!(verify_within(1e-4, &bundle, &recording).unwrap().passed);
    let data = bundle.join("model.onnx.data");
    let mut bytes = fs::read(&data).unwrap();
    // The exponent of a weight of the first locally connected layer: the first neuron's for the middle of its window
    // (what lies before it meets the padding), 3x3 positions with 4 channels each.
    let middle = 4 * 4;
    bytes[middle * 4 + 3] = 0x47;
    fs::write(&data, &bytes).unwrap();
    let report = verify_within(1e-4, &bundle, &recording).unwrap();
    assert!(!report.passed);
    assert!(report.layers.iter().take(2).all(|layer| layer.passed), "{report}");
    assert!(!report.layers[2].passed, "{report}");
}

#[test]
fn a_changed_byte_that_changes_no_activation_is_seen() {
    let (fixture, bundle) = exported();
    let recording = fixture.record(|_| ());
    let data = bundle.join("model.onnx.data");
    let mut bytes = fs::read(&data).unwrap();
    // The first neuron's weight for the corner of its window, where the padding is.
    bytes[0] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let report = verify_within(1e-4, &bundle, &recording).unwrap();
    assert!(report.layers.iter().all(|layer| layer.passed), "{report}");
    assert!(!report.passed && !report.data_unchanged);
    assert!(
        report.to_string().contains("model.onnx.data has changed"),
        "{report}"
    );
}

#[test]
fn weights_that_are_no_numbers_never_pass() {
    let (fixture, bundle) = exported();
    let recording = fixture.record(|_| ());
    let data = bundle.join("model.onnx.data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&data, &bytes).unwrap();
    let report = verify_within(f64::MAX, &bundle, &recording).unwrap();
    assert!(!report.passed);
    let failed = report.layers.iter().find(|layer| !layer.passed).unwrap();
    assert!(failed.relative_error.is_nan());
}

#[test]
fn recordings_of_other_networks_are_refused() {
    let (fixture, bundle) = exported();
    let other = "0".repeat(64);
    let recording = fixture.record_as(&other, |_| ());
    let error = verify_within(1e-4, &bundle, &recording).unwrap_err().to_string();
    assert!(
        error.contains(&other) && error.contains(fixture.checkpoint().digest()),
        "{error}"
    );

    let recording = fixture.record(|tensors| {
        let (_, relu) = tensors.iter_mut().find(|(name, _)| name == "relu").unwrap();
        relu.shape.swap(1, 2);
    });
    let error = verify_within(1e-4, &bundle, &recording).unwrap_err();
    assert!(matches!(error, VerifyError::Shape { ref layer, .. } if layer == "relu"));

    let recording = fixture.record(|tensors| {
        let (_, input) = &mut tensors[0];
        input.shape = vec![input.shape[0], input.values.len() / input.shape[0]];
    });
    let error = verify_within(1e-4, &bundle, &recording).unwrap_err();
    assert!(matches!(error, VerifyError::Input { .. }), "{error}");

    let recording = fixture.record(|tensors| tensors.retain(|(name, _)| name == "input" || name == "conv1"));
    let error = verify_within(1e-4, &bundle, &recording).unwrap_err().to_string();
    assert!(
        error.contains("share no layer") && error.contains("layer3.0.downsample"),
        "{error}"
    );
}

#[test]
fn layers_that_were_not_recorded_are_reported() {
    let (fixture, bundle) = exported();
    let recording = fixture.record(|tensors| tensors.retain(|(name, _)| !name.starts_with("layer2")));
    let report = verify_within(1e-5, &bundle, &recording).unwrap();
    assert!(report.passed);
    let missing = ["bn1", "relu1", "bn2", "downsample"].map(|name| format!("layer2.0.{name}"));
    let missing: Vec<_> = missing
        .into_iter()
        .chain(["layer2.0".into(), "layer2".into()])
        .collect();
    assert_eq!(report.not_recorded, missing);
    let all = Recording::open(&recording).unwrap().layers().len();
    assert!(
        report.layers.len() < all,
        "the recording's preactivations aren't in the bundle"
    );
}

#[test]
fn an_existing_version_is_never_replaced() {
    let (fixture, bundle) = exported();
    let before = fs::read(bundle.join("model.onnx")).unwrap();
    let mut request = fixture.request(LayerSelection::default());
    request.version = "1".parse().ok();
    let error = export(&request, &mut |_| ControlFlow::Continue(())).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("exists already") && text.contains("--model-version 2"),
        "{text}"
    );
    assert_eq!(fs::read(bundle.join("model.onnx")).unwrap(), before);
    assert_eq!(entries(&fixture.repository().join("net")), ["1"]);
}

#[test]
fn unknown_layers_are_answered_with_those_that_exist() {
    let fixture = small();
    let selection = LayerSelection {
        names: Some(vec!["layer7".into()]),
        keep_preactivations: false,
    };
    let error = fixture.try_export(selection).unwrap_err().to_string();
    assert!(
        error.contains("`layer7`") && error.contains("layer3.0.downsample"),
        "{error}"
    );
    assert!(!fixture.repository().exists());
}

#[test]
fn a_damaged_checkpoint_leaves_no_trace() {
    let fixture = small();
    let path = fixture.checkpoint_path();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = fixture.try_export(LayerSelection::default()).unwrap_err();
    assert!(matches!(error, ExportError::Checkpoint(_)));
    let text = chain(&error);
    assert!(
        text.contains("digest") && text.contains("net.safetensors"),
        "{text}"
    );
    assert_eq!(entries(fixture.folder()), ["net.safetensors"]);
}

#[test]
fn an_interrupted_export_leaves_no_trace() {
    let fixture = small();
    let mut written = 0;
    let error = export(&fixture.request(LayerSelection::default()), &mut |progress| {
        assert!(progress.written <= progress.total);
        written += 1;
        ControlFlow::Break(())
    });
    assert!(matches!(error, Err(ExportError::Interrupted)));
    assert_eq!(written, 1);
    assert_eq!(entries(fixture.folder()), ["net.safetensors"]);
}

#[test]
fn two_exports_to_one_model_do_not_meet() {
    let fixture = small();
    let running = PendingBundle::begin(&fixture.repository(), &"net".parse().unwrap(), None).unwrap();
    let error = fixture.try_export(LayerSelection::default()).unwrap_err();
    assert!(matches!(error, ExportError::Busy { .. }), "{error}");
    drop(running);
    fixture.export(LayerSelection::default());
}
