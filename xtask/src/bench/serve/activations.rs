//! Large activations of a network that computes little, over gRPC: how many bytes the server moves.

use anyhow::Result;

use super::super::metric::{Better, Metric, significant};
use super::Bench;
use super::networks::WIDE;
use crate::report;

/// The layer whose activations are asked for.
const LAYER: &str = "layer1";
/// Share of what a bare copy moves that is to be reached.
const BOUND: f64 = 0.4;
/// Measured in turns with the copy so many times; the medians count.
const ROUNDS: usize = 3;

/// A stream beside a bare TCP copy.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Metric>> {
    report::step("large activations over gRPC, beside a bare TCP copy");
    let server = bench.start(&[])?;
    let (mut moved, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let copy = bench.load_for_a_time(&["loopback", "--warm-up", "0.5"])?;
        copied.push(copy.get("bytes_per_second")?);
        let stream = bench.load_for_a_time(&[
            "stream",
            "--url",
            &server.grpc,
            "--model",
            WIDE.name,
            "--layers",
            LAYER,
            "--shape",
            &WIDE.shape(),
        ])?;
        moved.push(stream.get("bytes_per_second")?);
    }
    server.stop()?;
    let (moved, copied) = (median(moved), median(copied));
    let note = format!(
        "{} GB/s, a bare copy {} GB/s",
        significant(moved / 1e9),
        significant(copied / 1e9)
    );
    let metric = Metric::new(format!("activations.{LAYER}.bytes_share"), moved / copied, "");
    Ok(vec![metric.against("bound", BOUND, Better::Higher).noting(note)])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
