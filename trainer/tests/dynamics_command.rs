//! `trainer dynamics`: the table, the picture, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::process::{Command, Output};

fn dynamics(folder: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .arg("dynamics")
        .arg("--output-dir")
        .arg(folder)
        .args(options)
        .output()
        .unwrap()
}

#[test]
fn a_table_and_a_picture_are_written_the_same_for_the_same_seed() {
    let folder = tempfile::tempdir().unwrap();
    let options = [
        "--kernels",
        "2,3",
        "--gammas",
        "0.1",
        "--presentations",
        "5",
        "--seed",
        "4",
    ];
    let write = |name: &str| {
        let folder = folder.path().join(name);
        let output = dynamics(&folder, &options);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ["dynamics.csv", "dynamics.svg"].map(|file| std::fs::read_to_string(folder.join(file)).unwrap())
    };
    let [table, picture] = write("one/folder");
    assert_eq!([table.clone(), picture.clone()], write("another"));

    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap(),
        "rule,kernel_size,gamma,presentations,inverse_squared_snr"
    );
    let rows: Vec<Vec<_>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 2 * 2 * 6);
    assert_eq!(rows[0][..4], ["instant-sgd", "2", "0.1", "0"]);
    assert_eq!(rows[23][..4], ["lateral-inhibition", "3", "0.1", "5"]);
    assert!(rows.iter().all(|row| row[4].parse::<f64>().unwrap() > 0.0));
    assert!(picture.starts_with("<svg"));
}

#[test]
fn what_can_not_be_simulated_is_refused() {
    for (options, expected) in [
        (["--neurons", "1"], "1 is not in 2..=1000000"),
        (["--gammas", "0.1,-1"], "expected a number above 0, and 1 at most"),
        (["--kernels", "3,3"], "--kernels names 3 twice"),
        (["--kernels", "0"], "0 is not in 1..=1000"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = dynamics(folder.path(), &options);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains(expected),
            "{message}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_folder_that_can_not_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let output = dynamics(&file, &["--presentations", "1"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && message.contains("can't make the folder"),
        "{message}"
    );
}
