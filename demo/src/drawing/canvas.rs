//! A white picture to draw rectangles, images and text on. What lies outside is cut off.

use image::{Rgb, RgbImage};

/// A colour: red, green, blue.
pub type Colour = Rgb<u8>;

/// Paper.
pub const WHITE: Colour = Rgb([255, 255, 255]);
/// Text.
pub const BLACK: Colour = Rgb([28, 30, 36]);
/// Secondary text.
pub const GREY: Colour = Rgb([112, 116, 126]);
/// Lines and the empty part of bars.
pub const LIGHT_GREY: Colour = Rgb([226, 228, 233]);
/// Right answers.
pub const GREEN: Colour = Rgb([34, 139, 84]);
/// Wrong answers.
pub const RED: Colour = Rgb([200, 62, 54]);
/// Answers of which nobody knows whether they are right.
pub const BLUE: Colour = Rgb([52, 102, 176]);

/// A rectangle in pixels, from its upper left corner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Area {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// The picture in the making.
#[derive(Clone, Debug)]
pub struct Canvas {
    picture: RgbImage,
}

impl Canvas {
    /// A white canvas.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            picture: RgbImage::from_pixel(width, height, WHITE),
        }
    }

    /// The finished picture.
    pub fn into_picture(self) -> RgbImage {
        self.picture
    }

    /// Fills an area with one colour.
    pub fn fill(&mut self, area: Area, colour: Colour) {
        self.paint(area, |_, _| colour);
    }

    /// Draws a frame of one pixel just outside an area.
    pub fn frame(&mut self, area: Area, colour: Colour) {
        let Area { x, y, width, height } = area;
        let (left, top) = (x.saturating_sub(1), y.saturating_sub(1));
        for (x, y, width, height) in [
            (left, top, width + 2, 1),
            (left, y + height, width + 2, 1),
            (left, top, 1, height + 2),
            (x + width, top, 1, height + 2),
        ] {
            self.fill(Area { x, y, width, height }, colour);
        }
    }

    /// Fills an area with a grid of `columns` x `rows` cells, scaled to it without blending; `colour` gives a cell's
    /// colour by column and row.
    pub fn grid(&mut self, area: Area, columns: usize, rows: usize, colour: impl Fn(usize, usize) -> Colour) {
        self.paint(area, |x, y| {
            let column = x as usize * columns / area.width as usize;
            let row = y as usize * rows / area.height as usize;
            colour(column, row)
        });
    }

    /// Mixes a colour into one pixel; `share` 0 leaves it, 255 replaces it.
    pub fn blend(&mut self, x: u32, y: u32, colour: Colour, share: u8) {
        if let Some(pixel) = self.picture.get_pixel_mut_checked(x, y) {
            for (below, above) in pixel.0.iter_mut().zip(colour.0) {
                let mixed = u16::from(*below) * u16::from(255 - share) + u16::from(above) * u16::from(share);
                *below = u8::try_from((mixed + 127) / 255).unwrap_or(u8::MAX);
            }
        }
    }

    fn paint(&mut self, area: Area, colour: impl Fn(u32, u32) -> Colour) {
        for y in 0..area.height {
            for x in 0..area.width {
                if let Some(pixel) = self.picture.get_pixel_mut_checked(area.x + x, area.y + y) {
                    *pixel = colour(x, y);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_a_grid_are_scaled_without_blending() {
        let mut canvas = Canvas::new(6, 4);
        let area = Area {
            x: 1,
            y: 0,
            width: 4,
            height: 4,
        };
        canvas.grid(area, 2, 2, |column, row| {
            Rgb([u8::try_from(column * 10 + row).unwrap(), 0, 0])
        });
        let picture = canvas.into_picture();
        let red = |x, y| picture.get_pixel(x, y).0[0];
        assert_eq!([red(1, 0), red(2, 1), red(3, 1), red(4, 0)], [0, 0, 10, 10]);
        assert_eq!([red(1, 2), red(2, 3), red(3, 3), red(4, 2)], [1, 1, 11, 11]);
        assert_eq!(
            [picture.get_pixel(0, 0), picture.get_pixel(5, 0)],
            [&WHITE, &WHITE]
        );
    }

    #[test]
    fn a_frame_lies_around_its_area() {
        let mut canvas = Canvas::new(5, 5);
        canvas.frame(
            Area {
                x: 1,
                y: 1,
                width: 3,
                height: 3,
            },
            BLACK,
        );
        let picture = canvas.into_picture();
        let painted = picture
            .enumerate_pixels()
            .filter(|(_, _, pixel)| **pixel == BLACK)
            .count();
        assert_eq!(painted, 16);
        assert_eq!(picture.get_pixel(1, 1), &WHITE);
    }

    #[test]
    fn what_lies_outside_is_cut_off() {
        let mut canvas = Canvas::new(2, 2);
        canvas.fill(
            Area {
                x: 1,
                y: 1,
                width: 9,
                height: 9,
            },
            BLACK,
        );
        canvas.blend(7, 7, BLACK, 255);
        assert_eq!(
            canvas
                .into_picture()
                .pixels()
                .filter(|pixel| **pixel == BLACK)
                .count(),
            1
        );
    }

    #[test]
    fn blending_goes_from_the_one_colour_to_the_other() {
        let mut canvas = Canvas::new(3, 1);
        for (x, share) in [(0, 0), (1, 128), (2, 255)] {
            canvas.blend(x, 0, Rgb([0, 0, 0]), share);
        }
        let picture = canvas.into_picture();
        assert_eq!([0, 1, 2].map(|x| picture.get_pixel(x, 0).0[0]), [255, 127, 0]);
    }
}
