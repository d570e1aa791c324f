//! Metrics as a table for people.

use super::metric::Metric;

const HEADINGS: [&str; 6] = ["metric", "value", "baseline", "", "ratio", ""];
/// Columns of numbers end at the same place, those of words begin there.
const RIGHT: [bool; 6] = [false, true, false, true, true, false];

/// The lines of a table, headings first, its columns aligned.
pub(super) fn lines(metrics: &[Metric]) -> Vec<String> {
    let headings = HEADINGS.map(str::to_owned);
    let rows: Vec<_> = std::iter::once(headings)
        .chain(metrics.iter().map(Metric::cells))
        .collect();
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter().map(|row| line(row, widths)).collect()
}

fn line(row: &[String; HEADINGS.len()], widths: [usize; HEADINGS.len()]) -> String {
    let cells = row.iter().zip(widths).zip(RIGHT).map(|((cell, width), right)| {
        if right {
            format!("{cell:>width$}")
        } else {
            format!("{cell:<width$}")
        }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::metric::Better;
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let metrics = [
            Metric::new("forward.b1", 0.19, "s")
                .against("authors_forward.b1", 4.28, Better::Lower)
                .noting("12 GFLOP/s"),
            Metric::new("machine.gemm_peak", 490.0, "GFLOP/s"),
        ];
        let expected = [
            "metric                   value  baseline                    ratio",
            "forward.b1             0.190 s  authors_forward.b1  4.28 s   22.5  12 GFLOP/s",
            "machine.gemm_peak  490 GFLOP/s",
        ];
        assert_eq!(lines(&metrics), expected);
    }

    #[test]
    fn without_metrics_there_are_headings() {
        assert_eq!(lines(&[]).len(), 1);
    }
}
