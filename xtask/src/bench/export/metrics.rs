//! From what was measured to the metrics of the export benchmark.

use std::time::Duration;

use anyhow::Result;

use super::super::measurements::Measurements;
use super::super::metric::{Better, Metric, significant};
use super::super::process::Usage;

/// The exporter may hold so much memory, whatever the network's size.
const MEMORY_BOUND: f64 = 1.0;
/// Loading may take so many seconds.
const LOAD_BOUND: f64 = 1.0;
/// Images of the forward passes to the readout, and those of them that have more metrics.
const BATCHES: [usize; 4] = [1, 8, 32, 64];
const ALL_LAYERS_BATCHES: [usize; 3] = [1, 8, 32];
const PEAK_BATCHES: [usize; 2] = [32, 64];
const STAGE_BATCH: usize = 32;

/// Of the exporter's run, beside a plain copy of its input.
pub(super) fn export(prefix: &str, usage: &Usage, copy: Duration) -> Vec<Metric> {
    let anonymous = gibibytes(usage.peak_anonymous);
    vec![
        Metric::new(format!("{prefix}.export_time"), usage.duration.as_secs_f64(), "s").against(
            "copy of the checkpoint",
            copy.as_secs_f64(),
            Better::Lower,
        ),
        Metric::new(
            format!("{prefix}.export_peak_rss"),
            gibibytes(usage.peak_resident),
            "GiB",
        )
        .against("bound", MEMORY_BOUND, Better::Lower)
        .noting(format!("{} GiB without mapped files", significant(anonymous))),
    ]
}

/// Of the forward passes: `ours` in ONNX Runtime, `authors` in libtorch.
pub(super) fn forward(prefix: &str, ours: &Measurements, authors: &Measurements) -> Result<Vec<Metric>> {
    let macs = ours.get("macs")?;
    let gemm_peak = ours.get("gemm_peak")?;
    let bandwidth = ours.get("read_bandwidth")?;
    let mut metrics = vec![
        Metric::new(format!("{prefix}.load"), ours.get("load")?, "s").against(
            "bound",
            LOAD_BOUND,
            Better::Lower,
        ),
    ];
    for images in BATCHES {
        let seconds = ours.get(&format!("forward.b{images}"))?;
        let metric = Metric::new(format!("{prefix}.forward.b{images}"), seconds, "s")
            .noting(rate(macs * images as f64, seconds));
        let baseline = format!("authors_forward.b{images}");
        metrics.push(match authors.get(&baseline) {
            Ok(value) => metric.against(&baseline, value, Better::Lower),
            // The largest batch isn't worth the authors' time.
            Err(_) => metric,
        });
    }
    for images in ALL_LAYERS_BATCHES {
        let name = format!("forward.all_layers.b{images}");
        let readout = format!("forward.b{images}");
        metrics.push(
            Metric::new(format!("{prefix}.{name}"), ours.get(&name)?, "s").against(
                &readout,
                ours.get(&readout)?,
                Better::Lower,
            ),
        );
    }
    let read = ours.get("weight_bytes")? / ours.get("forward.b1")?;
    metrics.push(
        Metric::new(format!("{prefix}.read_bandwidth_share.b1"), read / bandwidth, "")
            .against("reading memory", 1.0, Better::Higher)
            .noting(format!("{} GB/s", significant(read / 1e9))),
    );
    for images in PEAK_BATCHES {
        let flops = 2.0 * macs * images as f64 / ours.get(&format!("forward.b{images}"))?;
        metrics.push(
            Metric::new(
                format!("{prefix}.gemm_peak_share.b{images}"),
                flops / gemm_peak,
                "",
            )
            .against("one large product", 1.0, Better::Higher)
            .noting(format!("{} GFLOP/s", significant(flops / 1e9))),
        );
    }
    metrics.extend(stages(prefix, ours)?);
    metrics.push(Metric::new("machine.read_bandwidth", bandwidth / 1e9, "GB/s"));
    metrics.push(Metric::new("machine.gemm_peak", gemm_peak / 1e9, "GFLOP/s"));
    Ok(metrics)
}

/// Every stage's time: that of the graph cut after it, less that of the graph cut before it.
fn stages(prefix: &str, ours: &Measurements) -> Result<Vec<Metric>> {
    let suffix = format!(".b{STAGE_BATCH}");
    let mut ends: Vec<_> = ours
        .below("forward_to.")
        .filter_map(|(name, seconds)| Some((name.strip_suffix(&suffix)?, seconds)))
        .collect();
    // A deeper cut takes longer, but for noise in the last ones: names break ties in the order of the network.
    let rank = |name: &str| match name {
        "fc" => usize::MAX,
        _ => name
            .strip_prefix("layer")
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
    };
    ends.sort_by_key(|(name, _)| rank(name));
    let mut before = 0.0;
    let mut metrics = Vec::new();
    for (name, until) in ends {
        let seconds = until - before;
        before = until;
        let macs = ours.get(&format!("stage_macs.{name}"))? * STAGE_BATCH as f64;
        metrics.push(
            Metric::new(format!("{prefix}.stage.{name}.b{STAGE_BATCH}"), seconds, "s")
                .noting(rate(macs, seconds)),
        );
    }
    Ok(metrics)
}

/// Floating-point operations a second, where the time is long enough to tell.
fn rate(macs: f64, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{} GFLOP/s", significant(2.0 * macs / seconds / 1e9))
    } else {
        String::new()
    }
}

/// Bytes in GiB.
pub(super) fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / (1_u64 << 30) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(metrics: &[Metric], name: &str) -> [String; 6] {
        let cells = metrics.iter().map(Metric::cells);
        cells.into_iter().find(|cells| cells[0] == name).unwrap()
    }

    #[test]
    fn the_export_is_compared_with_a_copy_and_a_bound() {
        let usage = Usage {
            duration: Duration::from_secs(8),
            peak_resident: 1 << 29,
            peak_anonymous: 1 << 28,
        };
        let metrics = export("full_size", &usage, Duration::from_secs(6));
        let time = [
            "full_size.export_time",
            "8.00 s",
            "copy of the checkpoint",
            "6.00 s",
            "0.750",
            "",
        ];
        assert_eq!(metrics[0].cells(), time);
        let memory = find(&metrics, "full_size.export_peak_rss");
        assert_eq!(memory[1..5], ["0.500 GiB", "bound", "1.00 GiB", "2.00"]);
    }

    #[test]
    fn shares_and_stages_come_from_one_run() {
        let ours = Measurements::from([
            ("macs", 1e9),
            ("weight_bytes", 4e9),
            ("load", 0.5),
            ("gemm_peak", 400e9),
            ("read_bandwidth", 40e9),
            ("forward.b1", 0.2),
            ("forward.b8", 0.3),
            ("forward.b32", 0.4),
            ("forward.b64", 0.64),
            ("forward.all_layers.b1", 0.4),
            ("forward.all_layers.b8", 0.6),
            ("forward.all_layers.b32", 0.8),
            ("forward_to.fc.b32", 0.4),
            ("forward_to.layer1.b32", 0.25),
            ("forward_to.maxpool.b32", 0.125),
            ("stage_macs.maxpool", 1e8),
            ("stage_macs.layer1", 8e8),
            ("stage_macs.fc", 1e8),
        ]);
        let authors = Measurements::from([
            ("authors_forward.b1", 4.0),
            ("authors_forward.b8", 6.0),
            ("authors_forward.b32", 8.0),
        ]);
        let metrics = forward("full_size", &ours, &authors).unwrap();
        assert_eq!(find(&metrics, "full_size.load")[4], "2.00");
        assert_eq!(
            find(&metrics, "full_size.forward.b1")[1..5],
            ["0.200 s", "authors_forward.b1", "4.00 s", "20.0"]
        );
        assert_eq!(
            find(&metrics, "full_size.forward.b64")[1..5],
            ["0.640 s", "", "", ""]
        );
        assert_eq!(find(&metrics, "full_size.forward.all_layers.b8")[4], "0.500");
        assert_eq!(find(&metrics, "full_size.read_bandwidth_share.b1")[1], "0.500");
        assert_eq!(find(&metrics, "full_size.gemm_peak_share.b32")[1], "0.400");
        assert_eq!(find(&metrics, "full_size.gemm_peak_share.b64")[1], "0.500");
        let stages: Vec<_> = metrics
            .iter()
            .map(Metric::cells)
            .filter(|cells| cells[0].contains(".stage."))
            .map(|cells| (cells[0].clone(), cells[1].clone()))
            .collect();
        let expected = [
            ("full_size.stage.maxpool.b32", "0.125 s"),
            ("full_size.stage.layer1.b32", "0.125 s"),
            ("full_size.stage.fc.b32", "0.150 s"),
        ];
        assert_eq!(
            stages,
            expected.map(|(name, time)| (name.to_owned(), time.to_owned()))
        );
        assert_eq!(find(&metrics, "full_size.stage.layer1.b32")[5], "410 GFLOP/s");
    }

    #[test]
    fn a_measurement_that_is_missing_is_named() {
        let error = forward("full_size", &Measurements::default(), &Measurements::default());
        assert!(error.unwrap_err().to_string().contains("macs"));
    }
}
