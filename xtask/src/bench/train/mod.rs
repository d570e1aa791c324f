//! `cargo xtask bench train`: the training engine against the authors' formulation in libtorch: one layer forward and
//! backward, the optimiser's step, a whole training step; and a full-size network.

mod full_size;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::environment::{Environment, cores};
use super::measurements::output_of;
use super::metric::{Better, Metric};
use super::process;
use super::results;
use crate::{cargo, report, setup, workspace};

/// Metrics of the full-size network begin with it.
const FULL_SIZE: &str = "full_size";

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Threads that compute [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Only metrics whose name contains one of these
    metrics: Vec<String>,
}

/// A time in seconds beside that of its baseline, as the benchmark program prints it.
#[derive(Deserialize)]
struct Line {
    metric: String,
    value: f64,
    baseline: String,
    baseline_value: f64,
}

/// Measures, prints the table and writes the file.
pub(crate) fn run(options: &Options) -> Result<()> {
    report::step("set-up");
    setup::set_up_as_before()?;
    report::step("build");
    let [trainer, engine] = cargo::build_with_benches(&["trainer"], &["engine"], ["trainer", "engine"])?;
    let threads = options.threads.map_or_else(cores, usize::from);
    let folder = workspace::bench_folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;

    let mut all = Vec::new();
    if options.wants_any_but(FULL_SIZE) {
        report::step("the engine and the authors' formulation in turns, a few minutes");
        let arguments = ["--threads".to_owned(), threads.to_string()];
        all = metrics(&output_of(&engine, arguments.iter().chain(&options.metrics))?)?;
        report::step("the memory of each");
        for name in all
            .iter()
            .map(|metric| metric.name().to_owned())
            .collect::<Vec<_>>()
        {
            all.push(memory(&engine, &name, threads)?);
        }
    }
    if options.wants(FULL_SIZE) {
        report::step("a network of full size, 16 GB of disk and 15 GiB of memory");
        all.extend(full_size::measure(&trainer, &folder.join("full-size"), threads)?);
    }
    let path = folder.join("train.json");
    results::publish(&all, &Environment::of_this_run(threads), &path)
}

impl Options {
    fn wants(&self, metric: &str) -> bool {
        self.metrics.is_empty() || self.metrics.iter().any(|part| part.contains(metric))
    }

    fn wants_any_but(&self, metric: &str) -> bool {
        self.metrics.is_empty() || self.metrics.iter().any(|part| !part.contains(metric))
    }
}

/// Peaks of processes that do nothing else, ours and the baseline's.
fn memory(engine: &Path, metric: &str, threads: usize) -> Result<Metric> {
    let peak = |side| {
        let mut command = Command::new(engine);
        command.args([
            "--threads",
            &threads.to_string(),
            "--side",
            side,
            "--exactly",
            metric,
        ]);
        let usage = process::run(command.current_dir(workspace::root()).stdout(Stdio::null()))?;
        Ok::<_, anyhow::Error>(usage.peak_resident as f64 / (1_u64 << 30) as f64)
    };
    let metric = Metric::new(format!("{metric}.peak_rss"), peak("ours")?, "GiB");
    Ok(metric.against("the authors' formulation", peak("theirs")?, Better::Lower))
}

fn metrics(printed: &str) -> Result<Vec<Metric>> {
    let metric = |line: &str| {
        let line: Line = serde_json::from_str(line)
            .with_context(|| format!("the benchmark printed `{line}`, which is no metric"))?;
        let metric = Metric::new(line.metric, line.value, "s");
        Ok(metric.against(&line.baseline, line.baseline_value, Better::Lower))
    };
    printed.lines().map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_metric_with_its_baseline() {
        let line = r#"{"metric":"adamw_step","value":0.5,"unit":"s","baseline":"tch","baseline_value":5.0,"ratio":10.0}"#;
        let expected = Metric::new("adamw_step", 0.5, "s").against("tch", 5.0, Better::Lower);
        assert_eq!(metrics(&format!("{line}\n")).unwrap(), [expected]);
        let error = metrics("warming up").unwrap_err().to_string();
        assert!(error.contains("`warming up`"), "{error}");
    }
}
