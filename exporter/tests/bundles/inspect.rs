//! `exporter inspect`, as people and programs read it.

use std::fs;
use std::path::{Path, PathBuf};

use exporter::selection::LayerSelection;
use model::Manifest;
use model::{Verification, manifest, verification};
use proto::onnx::StringStringEntryProto;
use serde_json::{Value, json};

use crate::command_line::{exporter, text};
use crate::support::{Fixture, read_model, small, write_model};

const BUNDLE: &str = "repository/net/1";

/// BLAKE3 of `abc`, from the algorithm's published test vectors.
const DIGEST_OF_ABC: &str = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";

fn exported(selection: LayerSelection) -> (Fixture, PathBuf) {
    let fixture = small();
    let bundle = fixture.export(selection);
    (fixture, bundle)
}

fn table(fixture: &Fixture) -> String {
    let output = exporter(&["inspect", BUNDLE], fixture.folder());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn json_of(fixture: &Fixture, options: &[&str]) -> Value {
    let output = exporter(
        &[&["inspect", BUNDLE, "--json"], options].concat(),
        fixture.folder(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The line of a table that begins with a word, its columns apart.
fn row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| {
        let cells = line.split("  ").map(str::trim);
        cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    });
    let mut rows = rows.filter(|cells| cells.first() == Some(&first));
    rows.next()
        .unwrap_or_else(|| panic!("no row `{first}` in\n{table}"))
}

fn set_metadata(bundle: &Path, key: &str, value: String) {
    let mut model = read_model(bundle);
    model.metadata_props.retain(|entry| entry.key != key);
    model.metadata_props.push(StringStringEntryProto {
        key: key.into(),
        value,
    });
    write_model(bundle, &model);
}

fn change_manifest(bundle: &Path, change: impl FnOnce(&mut Manifest)) {
    let model = read_model(bundle);
    let mut entries = model.metadata_props.iter();
    let entry = entries.find(|entry| entry.key == manifest::METADATA_KEY).unwrap();
    let mut manifest = Manifest::parse(&entry.value).unwrap();
    change(&mut manifest);
    let json = serde_json::to_string(&manifest).unwrap();
    set_metadata(bundle, manifest::METADATA_KEY, json);
}

fn set_verification(bundle: &Path, data_digest: &str) {
    let verification = json!({
        "runtime": "tract 0.1",
        "tolerance": 1e-4,
        "worst_layer": "layer3",
        "worst_error": 2.5e-7,
        "layers": [{"name": "layer3", "relative_error": 2.5e-7}, {"name": "fc", "relative_error": 1e-7}],
        "image_digests": ["aa", "bb", "cc"],
        "data_digest": data_digest,
    });
    set_metadata(bundle, verification::METADATA_KEY, verification.to_string());
}

/// The multiply-accumulates of `small()`, written down by hand: 8x8 images of 3 channels, width 4, three stages of one
/// block, 5 classes.
#[rustfmt::skip]
const MACS: [(&str, u64); 9] = [
    ("conv1", 8 * 8 * 9 * 3 * 4),
    ("layer1.0.conv1", 8 * 8 * 9 * 4 * 4),
    ("layer1.0.conv2", 8 * 8 * 9 * 4 * 4),
    ("layer2.0.conv1", 4 * 4 * 9 * 4 * 8),
    ("layer2.0.conv2", 4 * 4 * 9 * 8 * 8),
    ("layer2.0.downsample.0", 4 * 4 * 4 * 8),
    ("layer3.0.conv1", 2 * 2 * 9 * 8 * 16),
    ("layer3.0.conv2", 2 * 2 * 9 * 16 * 16),
    ("layer3.0.downsample.0", 2 * 2 * 8 * 16),
];

#[test]
fn json_has_every_number() {
    let (fixture, bundle) = exported(LayerSelection::default());
    let json = json_of(&fixture, &[]);
    assert_eq!(json["bundle"], BUNDLE);
    assert_eq!(json["family"], "CIFAR ResNet-8");
    assert_eq!(
        json["architecture"]["connectivity"],
        json!({"kind": "locally-connected", "n_first_conv": 1})
    );
    let model = read_model(&bundle);
    assert_eq!(json["ir_version"], model.ir_version);
    assert_eq!(json["opset_version"], model.opset_import[0].version);
    assert_eq!(json["weights"], "fp32");
    assert_eq!(json["provenance"], json!({"seed": 1}));
    assert_eq!(json["checkpoint_digest"], fixture.checkpoint().digest());
    assert_eq!(
        (&json["verification"], &json["data_check"]),
        (&Value::Null, &json!("not-asked"))
    );

    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 21);
    assert_eq!(
        layers[2],
        json!({"name": "layer1.0.bn1", "kind": "batch-norm", "shape": [4, 8, 8], "elements": 256, "bytes": 1024})
    );
    assert_eq!(
        layers[20],
        json!({"name": "fc", "kind": "readout", "shape": [5], "elements": 5, "bytes": 20})
    );

    let convolutions = json["convolutions"].as_array().unwrap();
    assert_eq!(convolutions.len(), MACS.len());
    for (index, (convolution, (name, macs))) in convolutions.iter().zip(MACS).enumerate() {
        assert_eq!(
            (&convolution["name"], &convolution["macs"]),
            (&json!(name), &json!(macs))
        );
        // Locally connected weights are used once, those of the one convolution at 64 positions.
        let (local, parameters) = if index == 0 {
            (false, macs / 64)
        } else {
            (true, macs)
        };
        assert_eq!(convolution["locally_connected"], local, "{name}");
        assert_eq!(convolution["parameters"], parameters, "{name}");
        let stored = &convolution["stored"];
        assert_eq!(stored["element_type"], "float32", "{name}");
        assert_eq!(stored["bytes"], 4 * parameters, "{name}");
        let shape = stored["shape"].as_array().unwrap();
        let elements: u64 = shape.iter().map(|length| length.as_u64().unwrap()).product();
        assert_eq!(elements, parameters, "{name}");
    }
    let totals = &json["totals"];
    let macs: u64 = MACS.iter().map(|(_, macs)| macs).sum();
    assert_eq!(totals["macs"], macs + 16 * 5);
    // BatchNorm has two numbers a channel; the readout has a bias.
    let norms = 2 * (3 * 4 + 3 * 8 + 3 * 16);
    let shared = MACS[0].1 - MACS[0].1 / 64;
    assert_eq!(totals["parameters"], macs - shared + norms + 16 * 5 + 5);
    for (file, bytes) in [("model.onnx", "model_bytes"), ("model.onnx.data", "data_bytes")] {
        let length = fs::metadata(bundle.join(file)).unwrap().len();
        assert_eq!(totals[bytes], length, "{file}");
    }
}

#[test]
fn the_table_is_for_people() {
    let (fixture, bundle) = exported(LayerSelection::default());
    change_manifest(&bundle, |manifest| {
        manifest.class_names = ["cat", "dog", "owl\u{1b}[2J", "fox", "elk"]
            .map(Into::into)
            .into();
    });
    let table = table(&fixture);
    assert_eq!(
        row(&table, "network")[1..],
        ["CIFAR ResNet-8, locally connected after a first convolution"]
    );
    assert_eq!(row(&table, "stem")[1..], ["3x3 kernels, stride 1"]);
    assert_eq!(
        row(&table, "stages")[1..],
        ["[1, 1, 1] blocks of 3x3 kernels, width 4"]
    );
    assert_eq!(row(&table, "input")[1..], ["8x8, 3 channels"]);
    assert_eq!(
        row(&table, "classes")[1..],
        ["5: cat, dog, owl\u{fffd}[2J, fox, elk"]
    );
    assert_eq!(row(&table, "verification")[1..], ["not verified"]);
    assert_eq!(
        row(&table, "layer2.0.downsample")[1..],
        ["batch-norm", "[8, 4, 4]", "128", "512"]
    );
    let conv2 = row(&table, "layer2.0.conv2");
    assert_eq!(conv2[1..5], ["locally connected", "9,216", "9,216", "float32"]);
    assert_eq!(conv2.last(), Some(&"36,864"));
    assert!(!table.contains('\u{1b}'));
}

#[test]
fn convolutions_that_no_layer_needs_are_not_stored() {
    let selection = LayerSelection {
        names: Some(vec!["layer1".into()]),
        keep_preactivations: false,
    };
    let (fixture, _) = exported(selection);
    let json = json_of(&fixture, &[]);
    let stored: Vec<_> = json["convolutions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| !c["stored"].is_null())
        .collect();
    assert_eq!(
        stored,
        [true, true, true, false, false, false, false, false, false]
    );
    assert_eq!(
        row(&table(&fixture), "layer3.0.conv1").last(),
        Some(&"not stored")
    );
}

#[test]
fn a_verification_is_shown_and_compared_with_the_weights() {
    let (fixture, bundle) = exported(LayerSelection::default());
    change_manifest(&bundle, |manifest| manifest.data_digest = "d1".into());
    set_verification(&bundle, "d1");
    let json = json_of(&fixture, &[]);
    let shown = &json["verification"];
    assert_eq!(shown["of_these_weights"], true);
    assert_eq!(shown["image_digests"], json!(["aa", "bb", "cc"]));
    let parsed: Verification = serde_json::from_value(shown.clone()).unwrap();
    assert_eq!((parsed.layers.len(), parsed.worst_error), (2, 2.5e-7));
    let printed = table(&fixture);
    assert_eq!(
        row(&printed, "verification")[1..],
        ["2 layers within 1e-4 for 3 images by tract 0.1"]
    );
    assert!(printed.contains("worst: layer3 (2.500e-7)"), "{printed}");
    assert!(!printed.contains("verify the bundle again"), "{printed}");

    for (of_manifest, of_verification) in [("d1", "d2"), ("", "")] {
        change_manifest(&bundle, |manifest| manifest.data_digest = of_manifest.into());
        set_verification(&bundle, of_verification);
        assert_eq!(json_of(&fixture, &[])["verification"]["of_these_weights"], false);
        assert!(table(&fixture).contains("verify the bundle again"));
    }

    set_metadata(&bundle, verification::METADATA_KEY, "{}".into());
    let output = exporter(&["inspect", BUNDLE], fixture.folder());
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("model.onnx") && errors.contains("missing field `runtime`"),
        "{errors}"
    );
}

#[test]
fn the_weights_are_compared_with_their_digest() {
    let (fixture, bundle) = exported(LayerSelection {
        // So small that every constant is in the graph: the data file is ours to write.
        names: Some(vec!["relu".into()]),
        keep_preactivations: false,
    });
    let data = bundle.join("model.onnx.data");
    assert_eq!(fs::metadata(&data).unwrap().len(), 0);
    fs::write(&data, "abc").unwrap();
    change_manifest(&bundle, |manifest| manifest.data_digest = DIGEST_OF_ABC.into());
    let json = json_of(&fixture, &["--check"]);
    assert_eq!(
        (&json["data_check"], &json["data_digest"]),
        (&json!("passed"), &json!(DIGEST_OF_ABC))
    );

    fs::write(&data, "abd").unwrap();
    let output = exporter(&["inspect", BUNDLE, "--check"], fixture.folder());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("model.onnx.data") && errors.contains(DIGEST_OF_ABC),
        "{errors}"
    );
    assert_eq!(
        json_of(&fixture, &[])["data_check"],
        "not-asked",
        "weights are read only where asked"
    );

    change_manifest(&bundle, |manifest| manifest.data_digest.clear());
    let output = exporter(&["inspect", BUNDLE, "--check"], fixture.folder());
    assert!(output.status.success());
    assert_eq!(
        row(&text(&output.stdout), "data")[1..],
        ["can't be checked: the manifest has no digest"]
    );
    assert_eq!(json_of(&fixture, &["--check"])["data_check"], "impossible");
}

#[test]
fn a_damaged_bundle_ends_with_1() {
    let (fixture, bundle) = exported(LayerSelection::default());
    let data = bundle.join("model.onnx.data");
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
    let output = exporter(&["inspect", BUNDLE], fixture.folder());
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("model.onnx") && errors.contains("lies outside"),
        "{errors}"
    );
    let output = exporter(&["inspect", "repository/absent/1", "--json"], fixture.folder());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let errors = text(&output.stderr);
    assert!(errors.contains("repository/absent/1/model.onnx"), "{errors}");
}
