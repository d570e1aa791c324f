//! Pictures of curves, as SVG documents and as PNG files.

mod png;

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

pub use png::PngError;

/// Okabe and Ito's colours, which colour-blind people tell apart too.
pub const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// Points of a curve that are drawn, at most about so many.
const POINTS: usize = 200;

/// A picture that can't be drawn.
#[derive(Debug, Error)]
#[error("can't draw the curves")]
pub struct PlotError(#[from] DrawingAreaErrorKind<io::Error>);

/// Something that can be drawn on any canvas.
pub trait Figure {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    /// Draws it on a white canvas of that size.
    ///
    /// # Errors
    /// [`PlotError`] where the drawing library fails.
    fn draw<Canvas: DrawingBackend<ErrorType = io::Error>>(
        &self,
        canvas: &DrawingArea<Canvas, Shift>,
    ) -> Result<(), PlotError>;
}

/// A figure as an SVG document.
///
/// # Errors
/// [`PlotError`] where the drawing library fails.
pub fn svg(figure: &impl Figure) -> Result<String, PlotError> {
    let mut document = String::new();
    {
        let canvas = SVGBackend::with_string(&mut document, figure.size()).into_drawing_area();
        canvas.fill(&WHITE)?;
        figure.draw(&canvas)?;
        canvas.present()?;
    }
    Ok(document)
}

/// A figure as a PNG file's bytes. Its text is in letters that come with the program: no fonts of the system are needed.
///
/// # Errors
/// [`PngError`] where the drawing library fails or the image can't be encoded.
pub fn png(figure: &impl Figure) -> Result<Vec<u8>, PngError> {
    png::draw(figure)
}

/// Evenly spaced indices of a curve with its first and its last.
pub fn thinned(length: usize) -> impl Iterator<Item = usize> {
    let last = length.saturating_sub(1);
    let step = last.div_ceil(POINTS).max(1);
    let end = (!last.is_multiple_of(step)).then_some(last);
    (0..=last).step_by(step).chain(end).filter(move |_| length > 0)
}

/// Values in the order in which they come, each once.
pub fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_both_ends() {
        let points: Vec<_> = thinned(1002).collect();
        assert_eq!((points[0], points[points.len() - 1]), (0, 1001));
        assert!(points.len() <= POINTS + 2);
        assert_eq!(thinned(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(thinned(0).count(), 0);
    }

    #[test]
    fn values_come_once_and_in_order() {
        assert_eq!(distinct([3, 1, 3, 2, 1].into_iter()), [3, 1, 2]);
    }
}
