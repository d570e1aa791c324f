//! Training that is killed at any moment leaves a checkpoint that can be read and resumed, and the resumed run ends with
//! the weights of one that was never stopped.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Checkpoint;
use model::checkpoint::open_tensors;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tests::images;
use tests::programs::program;

const KILLS: usize = 12;

/// Bit for bit the same result needs the same number of threads.
const RUN: [&str; 16] = [
    "--architecture",
    "resnet-cifar",
    "--blocks",
    "1,1",
    "--width",
    "4",
    "--sleep-every",
    "3",
    "--epochs",
    "60",
    "--batch-size",
    "32",
    "--threads",
    "1",
    "--device",
    "cpu",
];

fn train(data: &Path, output: &Path) -> Command {
    let mut command = program("trainer");
    command
        .arg("train")
        .arg("--data")
        .arg(data)
        .arg("--output")
        .arg(output);
    command.args(RUN).stderr(Stdio::null());
    command
}

#[test]
fn killed_training_can_be_read_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let data = path("data");
    images::write(&data, 256, 32);
    let uninterrupted = path("uninterrupted.safetensors");
    assert!(train(&data, &uninterrupted).status().unwrap().success());

    let killed = path("killed.safetensors");
    // Other moments in every run of the test.
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed of the moments: {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut finished = 0;
    for _ in 0..KILLS {
        let mut command = train(&data, &killed);
        if killed.exists() {
            command.arg("--resume");
        }
        let mut process = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(0..800)));
        finished += usize::from(process.try_wait().unwrap().is_some());
        // Fails where the process has ended by itself.
        let _ = process.kill();
        process.wait().unwrap();
        if killed.exists() {
            let checkpoint = Checkpoint::open(&killed).unwrap();
            checkpoint.verify().unwrap();
            open_tensors(&path("killed.training.safetensors")).unwrap();
        }
    }
    println!(
        "{} of {KILLS} runs were killed before their end",
        KILLS - finished
    );

    let mut command = train(&data, &killed);
    if killed.exists() {
        command.arg("--resume");
    }
    assert!(command.status().unwrap().success());
    let digest = |path: &Path| Checkpoint::open(path).unwrap().digest().to_owned();
    assert_eq!(digest(&killed), digest(&uninterrupted), "seed {seed}");
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".partial"), "{name} is left over");
    }
}
