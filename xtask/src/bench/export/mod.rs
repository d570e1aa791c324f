//! `cargo xtask bench export`: a locally connected ResNet-18 from its checkpoint to logits in ONNX Runtime, at full size
//! unless told otherwise, against plain copies, bounds, the authors' formulation and the machine's peaks.

mod files;
mod metrics;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::environment::{Environment, cores};
use super::measurements::Measurements;
use super::metric::Metric;
use super::{disk, process, results};
use crate::{cargo, report, setup, workspace};
use files::Files;

/// Channels of the first stage in the network of full size.
const FULL_WIDTH: usize = 64;
/// Of the input's sides, in pixels.
const INPUT_SIZE: usize = 224;
const CLASSES: usize = 1000;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Threads that compute [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Channels of the first stage; 64 is full size, 8 takes half a minute and 0.5 GB of disk
    #[arg(long, value_name = "N", default_value_t = FULL_WIDTH as u16, value_parser = clap::value_parser!(u16).range(1..))]
    width: u16,
    /// Keep the checkpoint and the bundle, and use those that were kept; the export is then not measured again
    #[arg(long)]
    keep: bool,
}

/// The programs, built for release.
struct Programs {
    trainer: PathBuf,
    exporter: PathBuf,
    forward: PathBuf,
    authors_forward: PathBuf,
}

/// Measures, prints the table and writes the file.
pub(crate) fn run(options: &Options) -> Result<()> {
    let threads = options.threads.map_or_else(cores, usize::from);
    let width = usize::from(options.width);
    let (name, prefix) = if width == FULL_WIDTH {
        ("export.json".to_owned(), "full_size".to_owned())
    } else {
        (format!("export.width{width}.json"), format!("width{width}"))
    };
    let files = Files::prepare(width, options.keep)?;
    disk::check(files.folder(), files.disk_needed(checkpoint_bytes(width)?))?;

    report::step("set-up");
    setup::set_up_as_before()?;
    report::step("build");
    let [trainer, exporter, forward, authors_forward] = cargo::build_with_benches(
        &["trainer", "exporter", "server"],
        &["forward", "authors_forward"],
        ["trainer", "exporter", "forward", "authors_forward"],
    )?;
    let programs = Programs {
        trainer,
        exporter,
        forward,
        authors_forward,
    };

    let mut measured = make_bundle(&programs, &files, width, threads, &prefix)?;
    let threads_text = threads.to_string();
    report::step("forward passes in ONNX Runtime, and the machine's peaks");
    let bundle = files.bundle();
    let bundle_and_threads = [
        "--bundle".as_ref(),
        bundle.as_os_str(),
        "--threads".as_ref(),
        threads_text.as_ref(),
    ];
    let ours = Measurements::of(&programs.forward, bundle_and_threads)?;
    // Two networks of this size don't fit every machine's memory, and neither do their files in its cache.
    drop(files);
    report::step("forward passes in the authors' formulation");
    let authors = Measurements::of(
        &programs.authors_forward,
        [
            "--width",
            &width.to_string(),
            "--input-size",
            &INPUT_SIZE.to_string(),
            "--classes",
            &CLASSES.to_string(),
            "--threads",
            &threads_text,
        ],
    )?;
    measured.extend(metrics::forward(&prefix, &ours, &authors)?);
    let path = workspace::bench_folder().join(name);
    results::publish(&measured, &Environment::of_this_run(threads), &path)
}

/// Makes checkpoint and bundle where they aren't there; the metrics of the export if there was one.
fn make_bundle(
    programs: &Programs,
    files: &Files,
    width: usize,
    threads: usize,
    prefix: &str,
) -> Result<Vec<Metric>> {
    let checkpoint = files.checkpoint();
    if checkpoint.exists() {
        report::step("checkpoint: kept from an earlier run");
    } else {
        report::step("write an untrained checkpoint");
        let usage = process::run(
            Command::new(&programs.trainer)
                .args([
                    "init",
                    "--architecture",
                    "resnet18",
                    "--connectivity",
                    "lc",
                    "--device",
                    "cpu",
                ])
                .args(["--width", &width.to_string()])
                .args(["--input-size", &INPUT_SIZE.to_string()])
                .args(["--classes", &CLASSES.to_string()])
                .args(["--threads", &threads.to_string()])
                .arg("--output")
                .arg(&checkpoint),
        )?;
        report::line(&format!(
            "{:.1} s, {:.2} GiB of memory at most",
            usage.duration.as_secs_f64(),
            metrics::gibibytes(usage.peak_resident)
        ));
    }
    if files.has_bundle() {
        report::step("bundle: kept from an earlier run, so the export isn't measured");
        return Ok(Vec::new());
    }
    report::step("copy the checkpoint, export it, copy it again");
    // The speed of disks changes from minute to minute: the better of the copies around the export counts.
    let before = files.time_copy()?;
    let export = process::run(
        Command::new(&programs.exporter)
            .arg("export")
            .arg(&checkpoint)
            .arg("--repository")
            .arg(files.repository())
            .args(["--model", files::MODEL, "--model-version", files::VERSION]),
    )?;
    let after = files.time_copy()?;
    report::line(&format!(
        "copies {:.2} s and {:.2} s, export {:.2} s",
        before.as_secs_f64(),
        after.as_secs_f64(),
        export.duration.as_secs_f64()
    ));
    Ok(metrics::export(prefix, &export, before.min(after)))
}

/// Bytes of the tensors of a checkpoint, all but a few of which are float32.
fn checkpoint_bytes(width: usize) -> Result<u64> {
    let input = model::InputShape {
        channels: 3,
        height: INPUT_SIZE,
        width: INPUT_SIZE,
    };
    let connectivity = model::Connectivity::LocallyConnected { n_first_conv: 0 };
    let architecture = model::Architecture::resnet18(input, width, CLASSES, connectivity);
    let network = architecture
        .network()
        .context("there is no network of this width")?;
    Ok(network.parameter_count() as u64 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_network_has_the_size_that_the_documents_name() {
        let gigabytes = checkpoint_bytes(FULL_WIDTH).unwrap() as f64 / 1e9;
        assert!((7.25..7.26).contains(&gigabytes), "{gigabytes}");
        assert!(checkpoint_bytes(usize::from(u16::MAX)).is_ok());
    }
}
