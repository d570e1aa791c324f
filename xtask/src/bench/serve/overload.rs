//! More requests than can be computed: the excess is to be refused at once, and what is accepted to be answered almost as
//! soon as under less load.

use anyhow::Result;

use super::super::measurements::Measurements;
use super::super::metric::{Better, Metric, significant};
use super::networks::MIDDLE;
use super::{Bench, classification};
use crate::report;
use crate::server::Server;

/// Clients of the closed loop that finds out what the server can do.
const CONNECTIONS: &str = "64";
/// Loads as shares of that.
const LOADS: [(&str, f64); 3] = [("load50", 0.5), ("load80", 0.8), ("load120", 1.2)];
/// By how much the 99th percentile of what is accepted may grow from the second to the third.
const BOUND: f64 = 2.0;

/// Open loops of some loads.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Metric>> {
    report::step("half, most, and more of the load that the server can bear");
    let server = bench.start(&[])?;
    let size = MIDDLE.size.to_string();
    let closed = bench.load_for_a_time(&[
        "closed",
        "--url",
        &classification(&server, &MIDDLE),
        "--image",
        &size,
        "--connections",
        CONNECTIONS,
    ])?;
    let capacity = closed.get("requests_per_second")?;
    // What this server's clients can bear is what they are used to; the better of two runs, for whatever else the machine
    // does meanwhile would be taken for it.
    let mut usual = f64::INFINITY;
    for _ in 0..2 {
        usual = usual.min(open(bench, &server, capacity * LOADS[1].1)?.get("p99")?);
    }
    server.stop()?;
    let wait = format!("{}ms", (usual * 1e3).ceil());
    let server = bench.start(&["--scheduling-maximum-wait", &wait])?;
    let mut metrics = vec![
        Metric::new("overload.capacity", capacity, "1/s")
            .noting(format!("closed loop, {CONNECTIONS} connections")),
        Metric::new("overload.maximum_wait", usual, "s").noting("scheduling.maximum_wait, p99 at 80 %"),
    ];
    let mut p99 = Vec::new();
    for (name, share) in LOADS {
        let load = open(bench, &server, capacity * share)?;
        p99.push(load.get("p99")?);
        let name = format!("overload.{name}");
        metrics.push(Metric::new(format!("{name}.p50"), load.get("p50")?, "s"));
        metrics.push(
            Metric::new(format!("{name}.p99"), load.get("p99")?, "s")
                .noting(format!("{} accepted/s", significant(load.get("accepted")?))),
        );
        metrics.push(Metric::new(
            format!("{name}.refused_share"),
            load.get("refused_share")?,
            "",
        ));
        if let Ok(time) = load.get("refusal.p99") {
            metrics.push(Metric::new(format!("{name}.refusal_p99"), time, "s"));
        }
    }
    server.stop()?;
    metrics.push(Metric::new("overload.p99_ratio", p99[2] / p99[1], "").against(
        "bound",
        BOUND,
        Better::Lower,
    ));
    Ok(metrics)
}

fn open(bench: &Bench, server: &Server, rate: f64) -> Result<Measurements> {
    bench.load_for_a_time(&[
        "open",
        "--url",
        &classification(server, &MIDDLE),
        "--image",
        &MIDDLE.size.to_string(),
        "--rate",
        &rate.to_string(),
    ])
}
