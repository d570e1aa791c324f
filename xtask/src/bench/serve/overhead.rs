//! What the server adds to a batch of an ordinary network, from the request to its answer.

use anyhow::Result;

use super::super::metric::{Better, Metric, significant};
use super::networks::RESNET18;
use super::{Bench, text};
use crate::report;

/// Images a batch.
const IMAGES: usize = 16;
/// Share of the computation that the server may add.
const BOUND: f64 = 0.03;

/// The server in turns with bare ONNX Runtime.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Metric>> {
    report::step("a batch of ResNet-18, in turns with bare ONNX Runtime");
    let server = bench.start(&[])?;
    let bundle = bench.bundle(&RESNET18);
    let measured = bench.load(&[
        "overhead",
        "--url",
        &server.grpc,
        "--model",
        RESNET18.name,
        "--bundle",
        text(&bundle)?,
        "--images",
        &IMAGES.to_string(),
    ])?;
    server.stop()?;
    let (bare, served) = (measured.get("bare")?, measured.get("served")?);
    let share = (served - bare) / bare;
    // A server that adds nothing measurable has no ratio.
    let metric = Metric::new(format!("overhead_share.b{IMAGES}"), share, "");
    let metric = if share > 0.0 {
        metric.against("bound", BOUND, Better::Lower)
    } else {
        metric
    };
    let note = format!(
        "{} s served, {} s in ONNX Runtime",
        significant(served),
        significant(bare)
    );
    Ok(vec![metric.noting(note)])
}
