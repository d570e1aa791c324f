//! `trainer train` at full size, on one batch of real images.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::super::disk;
use super::super::metric::{Better, Metric};
use crate::workspace;

/// Images of the batch.
const BATCH: usize = 16;
/// Epochs of one step each.
const STEPS: usize = 6;
/// Of the checkpoint and its training state, and some to spare.
const DISK: u64 = 16_000_000_000;
/// What training may have resident.
const BOUND: f64 = 20.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// A line of the trainer's log.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Record {
    Step { loss: f64, images_per_second: f64 },
    Epoch { peak_memory: u64 },
}

/// Trains a locally connected ResNet-18 of width 64 for 224 pixels, all in `folder`, which is emptied before and after.
pub(super) fn measure(trainer: &Path, folder: &Path, threads: usize) -> Result<Vec<Metric>> {
    let new = || {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))
    };
    new()?;
    disk::check(folder, DISK)?;
    data(folder)?;
    let [batch, epochs, threads] = [BATCH, STEPS, threads].map(|number| number.to_string());
    let status = Command::new(trainer)
        .args([
            "train",
            "--input-size",
            "224",
            "--channels",
            "3",
            "--moments",
            "bf16",
        ])
        .args([
            "--batch-size",
            &batch,
            "--epochs",
            &epochs,
            "--checkpoint-every",
            &epochs,
        ])
        .args(["--device", "cpu", "--threads", &threads, "--data"])
        .arg(folder)
        .arg("--output")
        .arg(folder.join("full.safetensors"))
        .status()
        .with_context(|| format!("can't run {}", trainer.display()))?;
    ensure!(
        status.success(),
        "the trainer failed ({status}); the lines above say why"
    );
    let log = folder.join("full.log.jsonl");
    let log = fs::read_to_string(&log).with_context(|| format!("can't read {}", log.display()))?;
    let metrics = metrics(&log)?;
    fs::remove_dir_all(folder).with_context(|| format!("can't remove {}", folder.display()))?;
    Ok(metrics)
}

/// The fastest step after the first, which takes memory; the peak at the end; first and last loss.
fn metrics(log: &str) -> Result<Vec<Metric>> {
    let (mut losses, mut seconds, mut peak) = (Vec::new(), Vec::new(), 0);
    for line in log.lines() {
        let record = serde_json::from_str(line);
        match record.with_context(|| format!("the trainer logged `{line}`, which isn't known"))? {
            Record::Step {
                loss,
                images_per_second,
            } => {
                losses.push(loss);
                seconds.push(BATCH as f64 / images_per_second);
            }
            Record::Epoch { peak_memory } => peak = peak.max(peak_memory),
        }
    }
    let (Some(first), Some(last)) = (losses.first(), losses.last()) else {
        anyhow::bail!("the trainer logged no step");
    };
    let step = seconds.iter().skip(1).copied().fold(f64::INFINITY, f64::min);
    Ok(vec![
        Metric::new("full_size.peak_rss", peak as f64 / GIB, "GiB").against("bound", BOUND, Better::Lower),
        Metric::new("full_size.step", step, "s")
            .noting(format!("{BATCH} images, AdamW, moments of bfloat16")),
        Metric::new("full_size.loss", *last, "nats")
            .against("of the first step", *first, Better::Lower)
            .noting(format!("after {STEPS} steps on the same images")),
    ])
}

/// The first images of the embedded set, to train and to test on.
fn data(folder: &Path) -> Result<()> {
    for stem in ["train", "t10k"] {
        for (kind, header, length) in [("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)] {
            let name = format!("{stem}-{kind}-ubyte");
            let source = workspace::root().join(format!("data/fashion-mnist/{name}.gz"));
            let copy = || {
                let mut bytes = vec![0; header + BATCH * length];
                GzDecoder::new(File::open(&source)?).read_exact(&mut bytes)?;
                // The number of images, big-endian.
                bytes[4..8].copy_from_slice(&(BATCH as u32).to_be_bytes());
                File::create(folder.join(&name))?.write_all(&bytes)
            };
            copy().with_context(|| format!("can't take images from {}", source.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_becomes_metrics() {
        let step = |loss, rate| {
            format!("{{\"event\":\"step\",\"epoch\":1,\"loss\":{loss},\"images_per_second\":{rate}}}\n")
        };
        let epoch = "{\"event\":\"epoch\",\"epoch\":1,\"peak_memory\":1073741824}\n";
        let log = [step(2.5, 16.0), epoch.into(), step(2.0, 4.0), step(1.5, 8.0)].concat();
        let found = metrics(&log).unwrap();
        let expected = [
            Metric::new("full_size.peak_rss", 1.0, "GiB").against("bound", BOUND, Better::Lower),
            Metric::new("full_size.step", 2.0, "s").noting("16 images, AdamW, moments of bfloat16"),
            Metric::new("full_size.loss", 1.5, "nats")
                .against("of the first step", 2.5, Better::Lower)
                .noting("after 6 steps on the same images"),
        ];
        assert_eq!(found, expected);
        assert!(metrics("").is_err());
    }

    #[test]
    fn the_batch_is_a_data_set() {
        let folder = tempfile::tempdir().unwrap();
        data(folder.path()).unwrap();
        let images = fs::read(folder.path().join("train-images-idx3-ubyte")).unwrap();
        assert_eq!(images.len(), 16 + BATCH * 784);
        assert_eq!(images[..8], [0, 0, 8, 3, 0, 0, 0, 16]);
        let labels = fs::read(folder.path().join("t10k-labels-idx1-ubyte")).unwrap();
        assert_eq!(labels.len(), 8 + BATCH);
        assert!(labels[8..].iter().all(|&label| label < 10));
    }
}
