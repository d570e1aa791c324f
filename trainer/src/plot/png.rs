//! A canvas of pixels for the drawing library, whose own needs fonts of the system.

use std::io::{self, Cursor};

use image::{ImageFormat, Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::prelude::IntoDrawingArea as _;
use plotters::style::WHITE;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind};
use thiserror::Error;

use super::{Figure, PlotError};

/// Stands for characters that the font lacks.
const SUBSTITUTE: char = '?';
const HEIGHT: RasterHeight = RasterHeight::Size16;

/// A picture that can't be made.
#[derive(Debug, Error)]
pub enum PngError {
    /// It can't be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// It can't be encoded.
    #[error("can't encode the picture")]
    Encode(#[from] image::ImageError),
}

pub(super) fn draw(figure: &impl Figure) -> Result<Vec<u8>, PngError> {
    let (width, height) = figure.size();
    let mut image = RgbImage::new(width, height);
    {
        let canvas = Canvas(&mut image).into_drawing_area();
        canvas.fill(&WHITE).map_err(PlotError::from)?;
        figure.draw(&canvas)?;
        canvas.present().map_err(PlotError::from)?;
    }
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
    Ok(bytes)
}

struct Canvas<'a>(&'a mut RgbImage);

impl DrawingBackend for Canvas<'_> {
    type ErrorType = io::Error;

    fn get_size(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<io::Error>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<io::Error>> {
        Ok(())
    }

    fn draw_pixel(
        &mut self,
        (x, y): BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<io::Error>> {
        let place = u32::try_from(x).ok().zip(u32::try_from(y).ok());
        // What lies outside the picture isn't seen.
        if let Some(pixel) = place.and_then(|(x, y)| self.0.get_pixel_mut_checked(x, y)) {
            let (red, green, blue) = color.rgb;
            let Rgb(below) = *pixel;
            let blend = |below: u8, above: u8| {
                let value = f64::from(below) * (1.0 - color.alpha) + f64::from(above) * color.alpha;
                value.round() as u8
            };
            *pixel = Rgb([
                blend(below[0], red),
                blend(below[1], green),
                blend(below[2], blue),
            ]);
        }
        Ok(())
    }

    fn draw_text<Style: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &Style,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<io::Error>> {
        let weight = weight(style);
        let (width, height) = size(text, weight);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let color = style.color();
        for (column, character) in (0..).zip(text.chars()) {
            let letter =
                get_raster(character, weight, HEIGHT).or_else(|| get_raster(SUBSTITUTE, weight, HEIGHT));
            let Some(letter) = letter else { continue };
            for (row, shares) in (0..).zip(letter.rows()) {
                for (step, &share) in (0..).zip(shares) {
                    let along = left + column * character_width(weight) + step;
                    let (right, down) = style.transform().transform(along, top + row);
                    let alpha = color.alpha * f64::from(share) / 255.0;
                    self.draw_pixel((x + right, y + down), BackendColor { alpha, ..color })?;
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<Style: BackendTextStyle>(
        &self,
        text: &str,
        style: &Style,
    ) -> Result<(u32, u32), DrawingErrorKind<io::Error>> {
        let (width, height) = size(text, weight(style));
        Ok((width.unsigned_abs(), height.unsigned_abs()))
    }
}

/// Captions are larger than other text; here they are bold, as the font has few sizes.
fn weight(style: &impl BackendTextStyle) -> FontWeight {
    if style.size() >= 18.0 {
        FontWeight::Bold
    } else {
        FontWeight::Regular
    }
}

fn character_width(weight: FontWeight) -> i32 {
    i32::try_from(get_raster_width(weight, HEIGHT)).unwrap_or(0)
}

fn size(text: &str, weight: FontWeight) -> (i32, i32) {
    let characters = i32::try_from(text.chars().count()).unwrap_or(i32::MAX);
    (
        characters.saturating_mul(character_width(weight)),
        HEIGHT.val() as i32,
    )
}
