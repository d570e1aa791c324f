//! What a benchmark leaves behind: one table on the terminal and a file of JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::environment::Environment;
use super::metric::Metric;
use super::table;
use crate::report;

/// One entry of the file's list: it can be moved to another list and still says where it comes from.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    metric: &'a Metric,
    environment: &'a Environment,
}

/// Prints the metrics and writes them to `path`, whose folder exists.
pub(super) fn publish(metrics: &[Metric], environment: &Environment, path: &Path) -> Result<()> {
    fs::write(path, json(metrics, environment)?)
        .with_context(|| format!("can't write {}", path.display()))?;
    report::step("results");
    report::line(&environment.line());
    report::line("ratio above 1: better than the baseline\n");
    for line in table::lines(metrics) {
        report::line(&line);
    }
    report::line(&format!("\nwritten to {}", path.display()));
    Ok(())
}

fn json(metrics: &[Metric], environment: &Environment) -> Result<String> {
    let entries: Vec<_> = metrics
        .iter()
        .map(|metric| Entry { metric, environment })
        .collect();
    let mut text = serde_json::to_string_pretty(&entries).context("can't word the results as JSON")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::metric::Better;
    use super::*;

    #[test]
    fn the_file_is_a_list_of_metrics_with_their_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export.json");
        let metrics = [
            Metric::new("full_size.load", 0.5, "s").against("bound", 1.0, Better::Lower),
            Metric::new("machine.gemm_peak", 490.0, "GFLOP/s"),
        ];
        publish(&metrics, &Environment::of_this_run(2), &path).unwrap();
        let list: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0]["metric"], "full_size.load");
        assert_eq!(list[0]["ratio"], 2.0);
        assert_eq!(list[1]["environment"]["threads"], 2);
    }
}
