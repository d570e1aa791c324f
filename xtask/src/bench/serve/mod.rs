//! `cargo xtask bench serve`: the server beside LitServe, FastAPI, bare ONNX Runtime and a bare TCP copy, and under more
//! load than it can bear. The load comes from a process of its own, which shares the cores with whatever it asks.

mod activations;
mod baselines;
mod classify;
mod memory;
mod networks;
mod overhead;
mod overload;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::environment::{Environment, cores};
use super::measurements::Measurements;
use super::results;
use crate::server::Server;
use crate::{cargo, report, setup, workspace};
use networks::{MIDDLE, Network, RESNET18, SMALL, WIDE};

/// Metrics' names begin with one of these, in the order in which they are measured.
const PARTS: [&str; 5] = [
    "classify_small",
    "overhead_share",
    "activations",
    "overload",
    "memory_growth",
];

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of everything that is measured for a time
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Only these parts: classify_small, overhead_share, activations, overload, memory_growth
    #[arg(value_name = "PART", value_parser = PARTS)]
    parts: Vec<String>,
}

/// What all parts need.
struct Bench {
    server: PathBuf,
    load: PathBuf,
    folder: PathBuf,
    repository: PathBuf,
    seconds: f64,
}

/// Measures, prints the table and writes the file.
pub(crate) fn run(options: &Options) -> Result<()> {
    report::step("set-up");
    setup::set_up_as_before()?;
    let wants = |part: &str| options.parts.is_empty() || options.parts.iter().any(|wanted| wanted == part);
    let python = wants(PARTS[0]).then(setup::prepare_baselines).transpose()?;
    report::step("build");
    let [exporter, server, load] =
        cargo::build_with_benches(&["exporter", "server"], &["load"], ["exporter", "server", "load"])?;
    let folder = workspace::bench_folder().join("serve");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let repository = folder.join("models");
    for network in [SMALL, RESNET18, MIDDLE, WIDE] {
        network.export(&exporter, &folder, &repository)?;
    }
    let bench = Bench {
        server,
        load,
        folder,
        repository,
        seconds: options.seconds,
    };
    let mut metrics = Vec::new();
    if let Some(python) = &python {
        metrics.extend(classify::measure(&bench, python)?);
    }
    if wants(PARTS[1]) {
        metrics.extend(overhead::measure(&bench)?);
    }
    if wants(PARTS[2]) {
        metrics.extend(activations::measure(&bench)?);
    }
    if wants(PARTS[3]) {
        metrics.extend(overload::measure(&bench)?);
    }
    if wants(PARTS[4]) {
        metrics.extend(memory::measure(&bench)?);
    }
    let path = workspace::bench_folder().join("serve.json");
    results::publish(&metrics, &Environment::of_this_run(cores()), &path)
}

impl Bench {
    fn start(&self, options: &[&str]) -> Result<Server> {
        Server::start_with(&self.server, &self.repository, &self.log("server"), options)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn bundle(&self, network: &Network) -> PathBuf {
        self.repository.join(network.name).join(networks::VERSION)
    }

    /// Runs the generator.
    fn load(&self, arguments: &[&str]) -> Result<Measurements> {
        Measurements::of(&self.load, arguments)
    }

    /// The same, for the time that is measured.
    fn load_for_a_time(&self, arguments: &[&str]) -> Result<Measurements> {
        let seconds = self.seconds.to_string();
        self.load(&[arguments, &["--seconds", &seconds]].concat())
    }
}

/// Where a server classifies a network's images.
fn classification(server: &Server, network: &Network) -> String {
    format!("{}/v1/models/{}/classify", server.http, network.name)
}

/// A path as an argument of the generator.
fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The middle of what was measured; no number where nothing was.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
