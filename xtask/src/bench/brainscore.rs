//! `cargo xtask bench brainscore`: activations for Brain-Score's assemblies, from a server over loopback against ONNX Runtime
//! in Brain-Score's own process, on the same cores; and the bytes that principal components on the server spare.
//!
//! The network is a ResNet-18 with layers of full size. It is convolutional: its activations weigh what a locally connected
//! one's do, and its weights 45 MB instead of 7.25 GB.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::environment::{Environment, cores};
use super::measurements::Measurements;
use super::metric::{Better, Metric, significant};
use super::results;
use crate::server::Server;
use crate::setup::BrainScore;
use crate::{cargo, report, setup, workspace};

const SCRIPT: &str = "benches/brainscore.py";
const MODEL: &str = "resnet18";
/// Channels of the first stage.
const WIDTH: &str = "64";
/// Measured in turns so many times; the fastest of each counts.
const ROUNDS: usize = 2;
/// How many times fewer bytes principal components are to take.
const BYTES_BOUND: f64 = 50.0;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Threads that compute [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Images that activations are extracted of, and principal components fitted on
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(64..))]
    images: u16,
}

/// What is measured with.
struct Bench {
    python: BrainScore,
    stimuli: PathBuf,
    bundle: PathBuf,
    threads: String,
}

/// Measures, prints the table and writes the file.
pub(crate) fn run(options: &Options) -> Result<()> {
    let threads = options.threads.map_or_else(cores, usize::from);
    report::step("set-up");
    setup::set_up_as_before()?;
    setup::prepare_client_tests()?;
    let Some(python) = setup::prepare_brain_score()? else {
        let (major, minor) = setup::BRAIN_SCORE_PYTHON;
        bail!("Brain-Score is made for Python {major}.{minor}: no python{major}.{minor} found");
    };
    report::step("build");
    let [trainer, exporter, server] =
        cargo::build_programs(cargo::Profile::Release, ["trainer", "exporter", "server"])?;

    report::step("an untrained network and stimuli");
    let folder = workspace::bench_folder().join("brainscore");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let repository = make_network(&folder, &trainer, &exporter)?;
    let bench = Bench {
        python,
        stimuli: folder.join("stimuli"),
        bundle: repository.join(MODEL).join("1"),
        threads: threads.to_string(),
    };
    bench.measure("stimuli", ["--images", &options.images.to_string()])?;

    let log = folder.join("server.log");
    let server = Server::start_with(&server, &repository, &log, &["--threads", &bench.threads])?;
    let metrics = bench.metrics(server.grpc.trim_start_matches("http://"))?;
    server.stop()?;
    fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    let path = workspace::bench_folder().join("brainscore.json");
    results::publish(&metrics, &Environment::of_this_run(threads), &path)
}

impl Bench {
    fn metrics(&self, address: &str) -> Result<Vec<Metric>> {
        report::step("extraction, remote and in process in turns");
        let remote = ["--address", address];
        let local = [
            OsStr::new("--address"),
            address.as_ref(),
            "--bundle".as_ref(),
            self.bundle.as_ref(),
            "--threads".as_ref(),
            self.threads.as_ref(),
        ];
        let (mut ours, mut theirs) = (Side::new(), Side::new());
        for _ in 0..ROUNDS {
            theirs.add(&self.measure("extract", local)?)?;
            ours.add(&self.measure("extract", remote)?)?;
        }
        report::step("principal components on the server");
        let components = self.measure("components", remote)?;
        let (whole, projected) = (components.get("whole")?, components.get("projected")?);
        let fit = components.get("fit")?;
        Ok(vec![
            Metric::new("extraction.remote_over_local", ours.seconds, "s").against(
                "in process",
                theirs.seconds,
                Better::Lower,
            ),
            Metric::new("extraction.peak_rss", gibibytes(ours.peak), "GiB")
                .against("in process", gibibytes(theirs.peak), Better::Lower)
                .noting(format!(
                    "the assembly itself: {} GiB",
                    significant(gibibytes(ours.bytes))
                )),
            Metric::new("pca.bytes_ratio", whole / projected, "times fewer")
                .against("bound", BYTES_BOUND, Better::Higher)
                .noting(format!(
                    "{} KB an image in place of {} KB; fitted in {} s",
                    significant(projected / 1e3),
                    significant(whole / 1e3),
                    significant(fit)
                )),
        ])
    }

    /// Runs a part of the script.
    fn measure<S: AsRef<OsStr>>(
        &self,
        what: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Measurements> {
        let script = workspace::root().join(setup::CLIENT_FOLDER).join(SCRIPT);
        let mut command = self.python.command();
        command
            .args(["-W", "ignore"])
            .arg(script)
            .arg(what)
            .arg(&self.stimuli);
        Measurements::of_command(command.args(arguments))
    }
}

/// What extractions of one kind took.
struct Side {
    seconds: f64,
    peak: f64,
    bytes: f64,
}

impl Side {
    fn new() -> Self {
        Self {
            seconds: f64::INFINITY,
            peak: 0.0,
            bytes: 0.0,
        }
    }

    fn add(&mut self, run: &Measurements) -> Result<()> {
        self.seconds = self.seconds.min(run.get("seconds")?);
        self.peak = self.peak.max(run.get("peak")?);
        self.bytes = run.get("bytes")?;
        Ok(())
    }
}

/// An exported network; returns the model repository.
fn make_network(folder: &Path, trainer: &Path, exporter: &Path) -> Result<PathBuf> {
    let checkpoint = folder.join("network.safetensors");
    let repository = folder.join("models");
    let mut init = Command::new(trainer);
    init.args(["init", "--architecture", "resnet18", "--connectivity", "conv"])
        .args(["--width", WIDTH, "--device", "cpu", "--output"])
        .arg(&checkpoint);
    let mut export = Command::new(exporter);
    export
        .arg("export")
        .arg(&checkpoint)
        .arg("--repository")
        .arg(&repository)
        .args(["--model", MODEL]);
    for mut command in [init, export] {
        super::process::run(&mut command)?;
    }
    Ok(repository)
}

fn gibibytes(bytes: f64) -> f64 {
    bytes / (1_u64 << 30) as f64
}
