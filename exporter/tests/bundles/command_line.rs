//! The program as people and scripts call it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{entries, small};

fn exporter(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exporter"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
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
