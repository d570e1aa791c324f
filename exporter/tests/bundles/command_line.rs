//! The program as people and scripts call it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use exporter::bundle::Bundle;

use crate::support::{entries, read_model, small};

pub fn exporter(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exporter"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const EXPORT: [&str; 6] = [
    "export",
    "net.safetensors",
    "--repository",
    "repository",
    "--model",
    "net",
];
const VERIFY: [&str; 4] = [
    "verify",
    "repository/net/1",
    "--recording",
    "net.activations.safetensors",
];

#[test]
fn export_and_verify_say_what_they_did() {
    let fixture = small();
    fixture.record(|tensors| tensors.retain(|(name, _)| name != "avgpool"));
    let output = exporter(&EXPORT, fixture.folder());
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        printed.contains("repository/net/1\n") && printed.contains("bn1, relu, layer1.0.bn1"),
        "{printed}"
    );

    let report = [
        VERIFY.as_slice(),
        &["--report", "report.json", "--tolerance", "1e-5"],
    ]
    .concat();
    let output = exporter(&report, fixture.folder());
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}{}", text(&output.stderr));
    assert!(
        printed.contains("not in the recording, so not compared: avgpool"),
        "{printed}"
    );
    assert!(printed.contains("; worst: "), "{printed}");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture.folder().join("report.json")).unwrap()).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["layers"][0]["name"], "bn1");
    assert_eq!(json["layers"][0]["shape"], serde_json::json!([3, 4, 8, 8]));
    assert_eq!(json["not_recorded"], serde_json::json!(["avgpool"]));
    let files = [
        "net.activations.safetensors",
        "net.safetensors",
        "report.json",
        "repository",
    ];
    assert_eq!(entries(fixture.folder()), files);
}

/// What the bundle says of its verification.
fn verification(bundle: &Path) -> Option<model::Verification> {
    let model = read_model(bundle);
    let mut entries = model
        .metadata_props
        .iter()
        .filter(|entry| entry.key == model::verification::METADATA_KEY);
    let entry = entries.next()?;
    assert!(entries.next().is_none());
    Some(model::Verification::parse(&entry.value).unwrap())
}

#[test]
fn a_bundle_carries_its_verification() {
    let fixture = small();
    fixture.record(|_| ());
    assert!(exporter(&EXPORT, fixture.folder()).status.success());
    let bundle = fixture.repository().join("net/1");
    let before = fs::read(bundle.join("model.onnx")).unwrap();

    let output = exporter(&[VERIFY.as_slice(), &["--read-only"]].concat(), fixture.folder());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(fs::read(bundle.join("model.onnx")).unwrap() == before);
    assert_eq!(verification(&bundle), None);

    for tolerance in ["1e-5", "1e-3"] {
        let output = exporter(
            &[VERIFY.as_slice(), &["--tolerance", tolerance]].concat(),
            fixture.folder(),
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        let found = verification(&bundle).unwrap();
        assert_eq!(found.tolerance, tolerance.parse::<f64>().unwrap());
        assert_eq!(found.layers.len(), 21);
        assert!(found.worst_error > 0.0 && found.worst_error <= 1e-5);
        let images = fixture.activations().swap_remove(0).1;
        let digests: Vec<_> = images
            .values
            .chunks(3 * 8 * 8)
            .map(|image| {
                let bytes: Vec<u8> = image
                    .iter()
                    .flat_map(|&value| (value as f32).to_le_bytes())
                    .collect();
                blake3::hash(&bytes).to_hex().to_string()
            })
            .collect();
        assert_eq!(found.image_digests, digests);
        let data = fs::read(bundle.join("model.onnx.data")).unwrap();
        assert_eq!(found.data_digest, blake3::hash(&data).to_hex().to_string());
    }
    assert_eq!(entries(&bundle), ["model.onnx", "model.onnx.data"]);
}

#[test]
fn what_fails_is_not_written_into_the_bundle() {
    let fixture = small();
    fixture.record(|_| ());
    assert!(exporter(&EXPORT, fixture.folder()).status.success());
    let bundle = fixture.repository().join("net/1");
    let strict = [VERIFY.as_slice(), &["--tolerance", "0"]].concat();
    assert_eq!(exporter(&strict, fixture.folder()).status.code(), Some(1));
    assert_eq!(verification(&bundle), None);

    let data = bundle.join("model.onnx.data");
    let mut bytes = fs::read(&data).unwrap();
    bytes[0] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let output = exporter(&VERIFY, fixture.folder());
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("not the one that was exported"), "{errors}");
    assert_eq!(verification(&bundle), None);
}

#[test]
fn activations_past_the_tolerance_end_with_1() {
    let fixture = small();
    fixture.record(|tensors| {
        let (_, logits) = tensors.iter_mut().find(|(name, _)| name == "fc").unwrap();
        logits.values[0] += 1.0;
    });
    assert!(exporter(&EXPORT, fixture.folder()).status.success());
    let report = [VERIFY.as_slice(), &["--report", "report.json"]].concat();
    let output = exporter(&report, fixture.folder());
    assert_eq!(output.status.code(), Some(1));
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    let row = printed.lines().find(|line| line.starts_with("fc ")).unwrap();
    assert!(row.ends_with("FAILED"), "{printed}");
    assert!(
        errors.contains("1 of 21 layers differ") && errors.contains("`fc`"),
        "{errors}"
    );
    let json = fs::read(fixture.folder().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&json["passed"], &json["worst_layer"]),
        (&false.into(), &"fc".into())
    );
}

#[test]
fn class_names_of_a_file_replace_those_of_the_checkpoint() {
    let fixture = small();
    let names = fixture.folder().join("names.txt");
    fs::write(&names, "cat\n\n great grey owl \r\ndog\nfox\nelk\n").unwrap();
    let export = [EXPORT.as_slice(), &["--class-names", "names.txt"]].concat();
    let output = exporter(&export, fixture.folder());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bundle = Bundle::open(&fixture.repository().join("net/1")).unwrap();
    let manifest = bundle.manifest();
    assert_eq!(
        manifest.class_names,
        ["cat", "great grey owl", "dog", "fox", "elk"]
    );
    assert_eq!(manifest.checkpoint_digest, fixture.checkpoint().digest());
}

#[test]
fn class_names_of_another_number_of_classes_are_refused() {
    let fixture = small();
    let names = fixture.folder().join("names.txt");
    let export = [EXPORT.as_slice(), &["--class-names", "names.txt"]].concat();
    for (content, found) in [("cat\ndog\nowl\nfox", "4 class names"), ("\n", "0 class names")] {
        fs::write(&names, content).unwrap();
        let output = exporter(&export, fixture.folder());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains(found) && errors.contains("of 5 classes"),
            "{errors}"
        );
    }
    fs::remove_file(&names).unwrap();
    let output = exporter(&export, fixture.folder());
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("can't read names.txt"), "{errors}");
    assert_eq!(entries(fixture.folder()), ["net.safetensors"]);
}

#[test]
fn mistakes_in_arguments_end_with_2_and_others_with_1() {
    let fixture = small();
    for (option, value) in [("--model", "../net"), ("--model-version", "0"), ("--layer", "fc")] {
        let output = exporter(&[EXPORT.as_slice(), &[option, value]].concat(), fixture.folder());
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
    }
    let output = exporter(
        &[VERIFY.as_slice(), &["--tolerance", "nan"]].concat(),
        fixture.folder(),
    );
    assert_eq!(output.status.code(), Some(2));
    let output = exporter(
        &["export", "absent", "--repository", "r", "--model", "net"],
        fixture.folder(),
    );
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.starts_with("error: absent\n  because: can't open the file\n"),
        "{errors}"
    );
    assert_eq!(entries(fixture.folder()), ["net.safetensors"]);
}

/// A shell's limit on the size of files stands for a full disk: the operating system refuses to write on.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_that_leaves_nothing_behind() {
    let fixture = small();
    let size = fs::metadata(fixture.checkpoint_path()).unwrap().len();
    // In blocks of 512 or of 1024 bytes: less than the weights in either.
    let blocks = size / 1024 / 2;
    // Without the trap the signal would end the program before it hears of the refusal.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_exporter")])
        .args(EXPORT)
        .current_dir(fixture.folder())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("can't write") && errors.contains("model.onnx.data"),
        "{errors}"
    );
    assert_eq!(entries(fixture.folder()), ["net.safetensors"]);
}
