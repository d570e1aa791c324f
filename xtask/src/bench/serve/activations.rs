//! Large activations of a network that computes little, over gRPC: how many bytes the server moves.

use anyhow::Result;

use super::super::metric::{Better, Metric, significant};
use super::networks::WIDE;
use super::{Bench, median};
use crate::report;

/// The layer after the first convolution, which takes a fraction of the time that its activations take on their way.
const BOUND_LAYER: &str = "relu";
/// Share of what a bare copy moves that is to be reached with it.
const BOUND: f64 = 0.4;
/// As large, but two more convolutions are computed for it.
const DEEPER_LAYER: &str = "layer1";
/// Measured in turns with the copy so many times; the medians count.
const ROUNDS: usize = 5;

/// Streams beside a bare TCP copy.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Metric>> {
    report::step("large activations over gRPC, beside a bare TCP copy");
    let server = bench.start(&[])?;
    let stream = |layer| -> Result<f64> {
        let arguments = ["stream", "--url", &server.grpc, "--model", WIDE.name];
        let what = ["--layers", layer, "--shape", &WIDE.shape()];
        let stream = bench.load_for_a_time(&[&arguments[..], &what].concat())?;
        stream.get("bytes_per_second")
    };
    let (mut copied, mut moved, mut deeper) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let copy = bench.load_for_a_time(&["loopback", "--warm-up", "0.5"])?;
        copied.push(copy.get("bytes_per_second")?);
        moved.push(stream(BOUND_LAYER)?);
        deeper.push(stream(DEEPER_LAYER)?);
    }
    server.stop()?;
    let copied = median(copied);
    let share = |layer, moved| {
        let note = format!(
            "{} GB/s, a bare copy {} GB/s",
            significant(moved / 1e9),
            significant(copied / 1e9)
        );
        Metric::new(format!("activations.{layer}.bytes_share"), moved / copied, "").noting(note)
    };
    Ok(vec![
        share(BOUND_LAYER, median(moved)).against("bound", BOUND, Better::Higher),
        share(DEEPER_LAYER, median(deeper)),
    ])
}
