//! One figure of a benchmark, and what it is compared with.

use serde::Serialize;

/// A figure with its baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Metric {
    metric: String,
    value: f64,
    unit: &'static str,
    /// What the value is compared with; `null` where it isn't.
    baseline: Option<String>,
    baseline_value: Option<f64>,
    /// Above 1: better than the baseline.
    ratio: Option<f64>,
    /// For the table alone.
    #[serde(skip)]
    note: String,
}

/// Which values are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    /// Times and sizes.
    Lower,
    /// Rates and shares.
    Higher,
}

impl Metric {
    /// A figure that is compared with nothing.
    pub(super) fn new(metric: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            metric: metric.into(),
            value,
            unit,
            baseline: None,
            baseline_value: None,
            ratio: None,
            note: String::new(),
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.metric
    }

    /// Compares the figure with a baseline in the same unit.
    pub(super) fn against(mut self, baseline: &str, value: f64, better: Better) -> Self {
        let ratio = match better {
            Better::Lower => value / self.value,
            Better::Higher => self.value / value,
        };
        self.baseline = Some(baseline.to_owned());
        self.baseline_value = Some(value);
        self.ratio = Some(ratio);
        self
    }

    /// Adds a remark to the table's row.
    pub(super) fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// The cells of the table's row: metric, value, baseline, its value, ratio, note.
    pub(super) fn cells(&self) -> [String; 6] {
        let with_unit = |value: f64| {
            format!("{} {}", significant(value), self.unit)
                .trim_end()
                .to_owned()
        };
        [
            self.metric.clone(),
            with_unit(self.value),
            self.baseline.clone().unwrap_or_default(),
            self.baseline_value.map(with_unit).unwrap_or_default(),
            self.ratio.map(significant).unwrap_or_default(),
            self.note.clone(),
        ]
    }
}

/// A number with three significant digits, or all digits before the point where there are more.
pub(super) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor();
    let decimals = (2.0 - magnitude).clamp(0.0, 9.0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_1_is_better_than_the_baseline() {
        let faster = Metric::new("forward", 0.5, "s").against("authors", 2.0, Better::Lower);
        assert_eq!(faster.ratio, Some(4.0));
        let lower = Metric::new("share", 0.5, "").against("peak", 1.0, Better::Higher);
        assert_eq!(lower.ratio, Some(0.5));
    }

    #[test]
    fn numbers_keep_three_significant_digits() {
        let cases = [
            (0.0, "0"),
            (0.018_74, "0.0187"),
            (0.19, "0.190"),
            (4.284, "4.28"),
            (35.26, "35.3"),
            (490.4, "490"),
            (12_345.6, "12346"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn json_has_the_fields_that_figures_are_followed_by() {
        let metric = Metric::new("full_size.load", 0.25, "s")
            .against("bound", 1.0, Better::Lower)
            .noting("for people");
        let json = serde_json::to_value(&metric).unwrap();
        let expected = serde_json::json!({
            "metric": "full_size.load", "value": 0.25, "unit": "s",
            "baseline": "bound", "baseline_value": 1.0, "ratio": 4.0,
        });
        assert_eq!(json, expected);
        let json = serde_json::to_value(Metric::new("peak", 1.0, "GB/s")).unwrap();
        assert!(json["baseline"].is_null() && json["ratio"].is_null());
    }
}
