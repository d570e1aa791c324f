//! Whether the server's memory grows with the requests that it has answered.

use std::fs;

use anyhow::{Context, Result};

use super::super::environment::field;
use super::super::metric::Metric;
use super::networks::SMALL;
use super::{Bench, classification};
use crate::report;

/// After so many requests everything that is kept is there.
const WARM_UP: &str = "20000";
/// Requests after them.
const REQUESTS: &str = "100000";

/// The growth of resident memory that no file is behind.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Metric>> {
    report::step("memory before and after 100,000 requests");
    let server = bench.start(&[])?;
    let url = classification(&server, &SMALL);
    let size = SMALL.size.to_string();
    let ask = |requests: &str| {
        bench.load(&["closed", "--url", &url, "--image", &size, "--requests", requests])?;
        resident(server.id())
    };
    let before = ask(WARM_UP)?;
    let after = ask(REQUESTS)?;
    server.stop()?;
    let growth = (after - before) / (1 << 20) as f64;
    Ok(vec![
        Metric::new("memory_growth", growth, "MiB").noting(format!("over {REQUESTS} requests")),
    ])
}

/// Bytes.
fn resident(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    let kibibytes = field(&status, "RssAnon").and_then(|text| text.strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kibibytes.with_context(|| format!("{path} has no RssAnon"))? * 1024.0)
}
