//! Images of a small network in a closed loop, one a request: what a server itself costs.

use anyhow::{Context, Result};

use super::super::environment::cores;
use super::super::metric::{Better, Metric, significant};
use super::baselines::Baseline;
use super::networks::SMALL;
use super::{Bench, classification, median, text};
use crate::report;
use crate::setup::Environment;

/// Clients, each of which sends its next request when the last one is answered.
const CONNECTIONS: &str = "64";
/// Every server is started and measured so many times, in turns; the median run counts.
const ROUNDS: usize = 3;
/// Seconds that a forward pass may take for a network to be small.
const SMALL_FORWARD: f64 = 2e-4;

/// What a server did.
#[derive(Clone, Copy)]
struct Run {
    requests_per_second: f64,
    p99: f64,
}

/// Ours beside the others.
pub(super) fn measure(bench: &Bench, python: &Environment) -> Result<Vec<Metric>> {
    report::step("classification by a small network, beside FastAPI and LitServe");
    let bundle = bench.bundle(&SMALL);
    let mut ours = Vec::new();
    let mut others = Baseline::ALL.map(|baseline| (baseline, Vec::new()));
    let mut forward = Vec::new();
    for _ in 0..ROUNDS {
        let server = bench.start(&[])?;
        ours.push(run(bench, &classification(&server, &SMALL), &[])?);
        let overhead = bench.load(&[
            "overhead",
            "--url",
            &server.grpc,
            "--model",
            SMALL.name,
            "--bundle",
            text(&bundle)?,
            "--images",
            "1",
            "--threads",
            "1",
        ])?;
        forward.push(overhead.get("bare")?);
        server.stop()?;
        for (baseline, runs) in &mut others {
            let log = bench.log(baseline.key());
            let server = baseline.start(python, &bundle, cores(), &log)?;
            runs.push(run(bench, &server.url, baseline.form())?);
        }
    }
    let ours = median_run(ours)?;
    let mut metrics = vec![
        Metric::new("classify_small.forward", median(forward), "s")
            .against("bound", SMALL_FORWARD, Better::Lower)
            .noting("one image, one thread, bare ONNX Runtime"),
    ];
    let mut best = None::<(Baseline, Run)>;
    let mut rows = Vec::new();
    for (baseline, runs) in others {
        let run = median_run(runs)?;
        let rate = format!("classify_small.{}.requests_per_second", baseline.key());
        rows.push(Metric::new(rate, run.requests_per_second, "1/s"));
        rows.push(Metric::new(
            format!("classify_small.{}.p99", baseline.key()),
            run.p99,
            "s",
        ));
        if best.is_none_or(|(_, best)| run.requests_per_second > best.requests_per_second) {
            best = Some((baseline, run));
        }
    }
    let (baseline, theirs) = best.context("there are no baselines")?;
    metrics.push(
        Metric::new(
            "classify_small.requests_per_second",
            ours.requests_per_second,
            "1/s",
        )
        .against(baseline.name(), theirs.requests_per_second, Better::Higher)
        .noting(format!("{CONNECTIONS} connections")),
    );
    metrics.push(
        Metric::new("classify_small.p99", ours.p99, "s")
            .against(baseline.name(), theirs.p99, Better::Lower)
            .noting(format!("at {} requests/s", significant(ours.requests_per_second))),
    );
    metrics.extend(rows);
    Ok(metrics)
}

fn run(bench: &Bench, url: &str, form: &[&str]) -> Result<Run> {
    let size = SMALL.size.to_string();
    let measured = bench.load_for_a_time(
        &[
            &[
                "closed",
                "--url",
                url,
                "--image",
                &size,
                "--connections",
                CONNECTIONS,
            ],
            form,
        ]
        .concat(),
    )?;
    Ok(Run {
        requests_per_second: measured.get("requests_per_second")?,
        p99: measured.get("p99")?,
    })
}

/// The run whose rate is the median.
fn median_run(mut runs: Vec<Run>) -> Result<Run> {
    runs.sort_by(|a, b| a.requests_per_second.total_cmp(&b.requests_per_second));
    runs.get(runs.len() / 2).copied().context("nothing was run")
}
