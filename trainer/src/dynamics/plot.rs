//! The courses of a convergence experiment as an SVG picture: a row of panels for each rule, a column for each γ, a colour
//! for each kernel size.

use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::convergence::Curve;
use super::rules::Rule;
use crate::plot::{self, COLOURS, Figure, PlotError, distinct};

/// Size of a panel in pixels.
const PANEL: (u32, u32) = (330, 290);

/// Draws curves as an SVG document. Values that a logarithmic axis can't show are left out.
///
/// # Errors
/// [`PlotError`] where the drawing library fails.
pub fn svg(curves: &[Curve]) -> Result<String, PlotError> {
    plot::svg(&Courses {
        curves,
        gammas: distinct(curves.iter().map(|curve| curve.gamma)),
        kernel_sizes: distinct(curves.iter().map(|curve| curve.kernel_size)),
        rules: distinct(curves.iter().map(|curve| curve.rule)),
    })
}

/// What the panels are of.
struct Courses<'a> {
    curves: &'a [Curve],
    gammas: Vec<f64>,
    kernel_sizes: Vec<usize>,
    rules: Vec<Rule>,
}

impl Figure for Courses<'_> {
    fn size(&self) -> (u32, u32) {
        (
            PANEL.0 * self.gammas.len() as u32,
            PANEL.1 * self.rules.len() as u32,
        )
    }

    fn draw<Canvas: DrawingBackend<ErrorType = io::Error>>(
        &self,
        canvas: &DrawingArea<Canvas, Shift>,
    ) -> Result<(), PlotError> {
        let Self {
            curves,
            gammas,
            kernel_sizes,
            rules,
        } = self;
        let values = value_range(curves);
        let panels = canvas.split_evenly((rules.len(), gammas.len()));
        let places = rules
            .iter()
            .flat_map(|&rule| gammas.iter().map(move |&gamma| (rule, gamma)));
        for (panel, (rule, gamma)) in panels.iter().zip(places) {
            let shown: Vec<_> = curves
                .iter()
                .filter(|curve| curve.rule == rule && curve.gamma == gamma)
                .collect();
            let caption = format!("{rule}, γ = {gamma}");
            // With the smallest γ curves fall the furthest, away from the legend's corner.
            let legend = gammas.iter().all(|&other| gamma <= other);
            draw_panel(panel, &shown, kernel_sizes, values.clone(), (&caption, legend))?;
        }
        Ok(())
    }
}

fn draw_panel<Canvas: DrawingBackend<ErrorType = io::Error>>(
    panel: &DrawingArea<Canvas, Shift>,
    curves: &[&Curve],
    kernel_sizes: &[usize],
    values: Range<f64>,
    (caption, legend): (&str, bool),
) -> Result<(), PlotError> {
    let presentations = curves
        .iter()
        .map(|curve| curve.inverse_snr.len())
        .max()
        .unwrap_or(0);
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, ("sans-serif", 19))
        .margin(8)
        .margin_right(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0..presentations.max(2) - 1, values.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(5)
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 16))
        .x_desc("presentations")
        .y_desc("1 / SNR²")
        .y_label_formatter(&|value| format!("{value:.0e}"))
        .draw()?;
    for &curve in curves {
        let index = kernel_sizes
            .iter()
            .position(|&size| size == curve.kernel_size)
            .unwrap_or(0);
        let colour = COLOURS[index % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(thinned(curve), colour.stroke_width(2)))?
            .label(format!("{0} x {0}", curve.kernel_size))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        if let Some(limit) = curve.limit().filter(|&limit| limit > 0.0) {
            let ends = [(0, limit), (presentations.max(2) - 1, limit)];
            chart.draw_series(DashedLineSeries::new(ends, 5, 4, colour.stroke_width(1)))?;
        }
    }
    if legend {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 15))
            .draw()?;
    }
    Ok(())
}

/// Points of a curve that a logarithmic axis can show.
fn thinned(curve: &Curve) -> impl Iterator<Item = (usize, f64)> {
    plot::thinned(curve.inverse_snr.len())
        .map(|index| (index, curve.inverse_snr[index]))
        .filter(|(_, value)| value.is_finite() && *value > 0.0)
}

/// From a little below the smallest to a little above the largest value and limit.
fn value_range(curves: &[Curve]) -> Range<f64> {
    let values = curves
        .iter()
        .flat_map(|curve| curve.inverse_snr.iter().copied().chain(curve.limit()))
        .filter(|value| value.is_finite() && *value > 0.0);
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low < high {
        low / 2.0..high * 2.0
    } else {
        0.1..10.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
mod tests {
    use super::*;
    use crate::dynamics::rules::Rule;

    fn curve(rule: Rule, inverse_snr: Vec<f64>) -> Curve {
        Curve {
            rule,
            kernel_size: 3,
            gamma: 0.01,
            inverse_snr,
        }
    }

    #[test]
    fn every_rule_has_a_panel_and_values_without_a_logarithm_are_left_out() {
        let curves = [
            curve(Rule::InstantSgd, vec![1.0, 0.5, 0.25]),
            curve(Rule::LateralInhibition, vec![1.0, 0.0, f64::NAN, f64::INFINITY]),
        ];
        let picture = svg(&curves).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        assert!(
            picture.contains("Instant SGD, γ = 0.01") && picture.contains("Lateral inhibition, γ = 0.01")
        );
        assert!(!picture.contains("NaN"), "{picture}");
    }
}
