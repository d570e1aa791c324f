//! A sweep's figures: accuracy by sleep frequency and initialisation, signal-to-noise ratio of weights and losses over
//! epochs.

use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Epoch, Row};
use crate::plot::{COLOURS, Figure, PlotError, distinct};
use crate::presets::Preset;
use crate::run::{ConnectivityChoice, InitialisationChoice};

const TEXT: (&str, i32) = ("sans-serif", 14);
const TITLE: (&str, i32) = ("sans-serif", 16);
/// Width and height of a panel in pixels.
const PANEL: (i32, i32) = (430, 330);
const LEGEND: i32 = 190;

/// Accuracy of every run, and its mean, by how often weights are shared.
pub struct Accuracy<'a>(pub &'a [Row]);

/// Median signal-to-noise ratio of the weights over epochs.
pub struct Ratios<'a>(pub &'a [Row]);

/// Losses over epochs: of the training steps, and on the images that runs are evaluated with.
pub struct Losses<'a>(pub &'a [Row]);

/// How often weights are shared, from always to never: a place on the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sharing {
    Always,
    Every(usize),
    Never,
    /// But for the first layer.
    FirstLayer,
}

impl Sharing {
    fn of(preset: &Preset) -> Self {
        match (preset.connectivity, preset.n_first_conv, preset.sleep_every) {
            (ConnectivityChoice::Conv, ..) => Self::Always,
            (ConnectivityChoice::Lc, 0, Some(every)) => Self::Every(every),
            (ConnectivityChoice::Lc, 0, None) => Self::Never,
            (ConnectivityChoice::Lc, ..) => Self::FirstLayer,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Always => "conv".into(),
            Self::Every(every) => format!("{every}"),
            Self::Never => "never".into(),
            Self::FirstLayer => "1st conv".into(),
        }
    }

    fn colour(self) -> RGBColor {
        match self {
            Self::Always => COLOURS[6],
            Self::Every(1) => COLOURS[0],
            Self::Every(10) => COLOURS[2],
            Self::Every(_) => COLOURS[4],
            Self::Never => COLOURS[1],
            Self::FirstLayer => COLOURS[3],
        }
    }
}

impl Figure for Accuracy<'_> {
    fn size(&self) -> (u32, u32) {
        size(PANEL.0 + 60 + LEGEND)
    }

    fn draw<Canvas: DrawingBackend<ErrorType = io::Error>>(
        &self,
        canvas: &DrawingArea<Canvas, Shift>,
    ) -> Result<(), PlotError> {
        let (panel, legend) = canvas.split_horizontally(PANEL.0 + 60);
        let mut places = distinct(self.0.iter().map(|row| Sharing::of(row.preset)));
        places.sort_unstable();
        let percent = |row: &Row| -> Vec<f64> {
            row.evaluations()
                .map(|evaluation| evaluation.top1 * 100.0)
                .collect()
        };
        let values = around(self.0.iter().flat_map(percent)).unwrap_or(0.0..100.0);
        let names: Vec<String> = places.iter().map(|place| place.name()).collect();
        let last = i32::try_from(places.len().saturating_sub(1)).unwrap_or(i32::MAX);
        let mut chart = ChartBuilder::on(&panel)
            .margin(8)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d((0..last).into_segmented(), values)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .x_labels(places.len() + 1)
            .label_style(TEXT)
            .axis_desc_style(TITLE)
            .x_desc("weights are shared every N steps")
            .y_desc("top-1 %")
            .x_label_formatter(&|place| {
                let index = match place {
                    SegmentValue::CenterOf(index) | SegmentValue::Exact(index) => {
                        usize::try_from(*index).ok()
                    }
                    SegmentValue::Last => None,
                };
                let name = index.and_then(|index| names.get(index));
                name.cloned().unwrap_or_default()
            })
            .draw()?;
        let series = [
            (InitialisationChoice::Conv, "conv initialisation", COLOURS[0]),
            (InitialisationChoice::Random, "random initialisation", COLOURS[1]),
        ];
        let entries = series.map(|(_, name, colour)| (name, colour.stroke_width(2), false));
        draw_legend(&legend, &entries)?;
        for (initialisation, _, colour) in series {
            let mut means = Vec::new();
            for (index, place) in (0..).zip(&places) {
                let of_place = self.0.iter().filter(|row| {
                    Sharing::of(row.preset) == *place && row.preset.initialisation == initialisation
                });
                for row in of_place {
                    let middle = || SegmentValue::CenterOf(index);
                    let runs = percent(row);
                    chart.draw_series(
                        runs.iter()
                            .map(|&y| Circle::new((middle(), y), 3, colour.mix(0.5).filled())),
                    )?;
                    if let Some(mean) = row.spread(|evaluation| evaluation.top1 * 100.0) {
                        means.push((*place, (middle(), mean.mean)));
                    }
                }
            }
            let line = means
                .iter()
                .filter(|(place, _)| matches!(place, Sharing::Every(_) | Sharing::Never))
                .map(|(_, point)| point.clone());
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            let marks = means
                .iter()
                .map(|(_, point)| Cross::new(point.clone(), 5, colour.stroke_width(2)));
            chart.draw_series(marks)?;
        }
        Ok(())
    }
}

impl Figure for Ratios<'_> {
    fn size(&self) -> (u32, u32) {
        size(PANEL.0 + LEGEND)
    }

    fn draw<Canvas: DrawingBackend<ErrorType = io::Error>>(
        &self,
        canvas: &DrawingArea<Canvas, Shift>,
    ) -> Result<(), PlotError> {
        let curves = curves(self.0, |epoch| epoch.weight_snr.filter(|ratio| *ratio > 0.0));
        let (panel, legend) = canvas.split_horizontally(PANEL.0);
        let entries: Vec<_> = curves.iter().map(|(row, _)| entry(row)).collect();
        draw_legend(&legend, &entries)?;
        let all = curves
            .iter()
            .flat_map(|(_, curve)| curve.iter().map(|(_, value)| value.log10()));
        let values = around(all).unwrap_or(-1.0..1.0);
        let epochs = epochs(&curves);
        let mut chart = ChartBuilder::on(&panel)
            .margin(8)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(
                epochs,
                (10_f64.powf(values.start)..10_f64.powf(values.end)).log_scale(),
            )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(6)
            .x_label_formatter(&epoch_label)
            .y_labels(6)
            .label_style(TEXT)
            .axis_desc_style(TITLE)
            .x_desc("epochs")
            .y_desc("SNR of weights, median of layers")
            .y_label_formatter(&|value| format!("{value:.1e}"))
            .draw()?;
        for (row, curve) in &curves {
            if is_dashed(row) {
                chart.draw_series(DashedLineSeries::new(curve.iter().copied(), 6, 4, style(row)))?;
            } else {
                chart.draw_series(LineSeries::new(curve.iter().copied(), style(row)))?;
            }
        }
        Ok(())
    }
}

impl Figure for Losses<'_> {
    fn size(&self) -> (u32, u32) {
        size(2 * PANEL.0 + LEGEND)
    }

    fn draw<Canvas: DrawingBackend<ErrorType = io::Error>>(
        &self,
        canvas: &DrawingArea<Canvas, Shift>,
    ) -> Result<(), PlotError> {
        let (panels, legend) = canvas.split_horizontally(2 * PANEL.0);
        draw_legend(&legend, &self.0.iter().map(entry).collect::<Vec<_>>())?;
        let (left, right) = panels.split_horizontally(PANEL.0);
        let training = curves(self.0, |epoch| Some(epoch.training_loss));
        let evaluation = curves(self.0, |epoch| Some(epoch.evaluation.loss));
        draw_losses(&left, "training images, augmented", &training)?;
        draw_losses(&right, "test images", &evaluation)
    }
}

/// Of a figure of a panel's height.
fn size(width: i32) -> (u32, u32) {
    (width.unsigned_abs(), PANEL.1.unsigned_abs())
}

/// A row with its curve: epochs, counted from 1, and values.
type Curve<'a> = (&'a Row, Vec<(f64, f64)>);

/// A number of every epoch, the mean over a row's runs.
fn curves(rows: &[Row], value: impl Fn(&Epoch) -> Option<f64>) -> Vec<Curve<'_>> {
    let of_row = |row: &Row| {
        let epochs = row
            .runs
            .iter()
            .map(|(_, outcome)| outcome.epochs.len())
            .max()
            .unwrap_or(0);
        let mean = |epoch: usize| {
            let values: Vec<f64> = row
                .runs
                .iter()
                .filter_map(|(_, outcome)| value(outcome.epochs.get(epoch)?))
                .filter(|value| value.is_finite())
                .collect();
            let sum: f64 = values.iter().sum();
            (!values.is_empty()).then(|| ((epoch + 1) as f64, sum / values.len() as f64))
        };
        (0..epochs).filter_map(mean).collect::<Vec<_>>()
    };
    let curves = rows.iter().map(|row| (row, of_row(row)));
    curves.filter(|(_, curve)| !curve.is_empty()).collect()
}

fn draw_losses<Canvas: DrawingBackend<ErrorType = io::Error>>(
    panel: &DrawingArea<Canvas, Shift>,
    caption: &str,
    curves: &[Curve],
) -> Result<(), PlotError> {
    let all = curves
        .iter()
        .flat_map(|(_, curve)| curve.iter().map(|(_, value)| *value));
    let values = around(all).unwrap_or(0.0..1.0);
    let mut chart = ChartBuilder::on(panel)
        .caption(caption, ("sans-serif", 18))
        .margin(8)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(epochs(curves), values)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(6)
        .x_label_formatter(&epoch_label)
        .label_style(TEXT)
        .axis_desc_style(TITLE)
        .x_desc("epochs")
        .y_desc("cross-entropy")
        .draw()?;
    for (row, curve) in curves {
        if is_dashed(row) {
            chart.draw_series(DashedLineSeries::new(curve.iter().copied(), 6, 4, style(row)))?;
        } else {
            chart.draw_series(LineSeries::new(curve.iter().copied(), style(row)))?;
        }
    }
    Ok(())
}

/// A name with how its line looks, dashed or not.
type Entry<'a> = (&'a str, ShapeStyle, bool);

fn entry(row: &Row) -> Entry<'static> {
    (row.preset.name, style(row), is_dashed(row))
}

/// Lines with their names, beside the panels: eleven would cover the curves.
fn draw_legend<Canvas: DrawingBackend<ErrorType = io::Error>>(
    area: &DrawingArea<Canvas, Shift>,
    entries: &[Entry],
) -> Result<(), PlotError> {
    let middle = Pos::new(HPos::Left, VPos::Center);
    for (line, (name, style, dashed)) in (0..).zip(entries) {
        let y = 30 + 22 * line;
        let ends = [(4, y), (34, y)];
        if *dashed {
            area.draw(&DashedPathElement::new(ends, 6, 4, *style))?;
        } else {
            area.draw(&PathElement::new(ends, *style))?;
        }
        let text = TEXT.into_text_style(area).pos(middle);
        area.draw(&Text::new(*name, (42, y), text))?;
    }
    Ok(())
}

/// Epochs are whole numbers.
fn epoch_label(epoch: &f64) -> String {
    if epoch.fract() == 0.0 {
        format!("{epoch}")
    } else {
        String::new()
    }
}

fn style(row: &Row) -> ShapeStyle {
    Sharing::of(row.preset).colour().stroke_width(2)
}

/// Random initialisation.
fn is_dashed(row: &Row) -> bool {
    row.preset.initialisation == InitialisationChoice::Random
}

fn epochs(curves: &[Curve]) -> Range<f64> {
    let last = curves
        .iter()
        .flat_map(|(_, curve)| curve.iter().map(|(epoch, _)| *epoch))
        .fold(2.0, f64::max);
    1.0..last
}

/// A range with a little room around values; `None` where there are none.
fn around(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let room = ((high - low) * 0.08).max(1e-3);
    (low <= high).then_some(low - room..high + room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn places_are_from_always_to_never() {
        let names = [
            "lc-random",
            "lc-sleep100-conv",
            "conv",
            "lc-sleep1-random",
            "lc-conv1-conv",
        ];
        let mut places: Vec<_> = names
            .iter()
            .map(|name| Sharing::of(presets::find(name).unwrap()))
            .collect();
        places.sort_unstable();
        let shown: Vec<_> = places.into_iter().map(Sharing::name).collect();
        assert_eq!(shown, ["conv", "1", "100", "never", "1st conv"]);
    }

    #[test]
    fn a_range_holds_its_values() {
        assert_eq!(around([].into_iter()), None);
        let range = around([2.0, f64::NAN, 1.0].into_iter()).unwrap();
        assert!(range.start < 1.0 && range.end > 2.0);
        assert!(around([5.0].into_iter()).unwrap().contains(&5.0));
    }
}
