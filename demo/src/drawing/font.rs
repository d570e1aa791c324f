//! Text in Noto Sans Mono. The letters come with the program, as bitmaps: no fonts of the system are needed.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::canvas::{Canvas, Colour};

/// Stands for characters that the font lacks.
const SUBSTITUTE: char = '?';

/// Size and weight of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// The picture's heading.
    Heading,
    /// Titles of columns, and what matters in a row.
    Bold,
    /// Everything else.
    Plain,
}

impl Style {
    fn bitmaps(self) -> (FontWeight, RasterHeight) {
        match self {
            Self::Heading => (FontWeight::Bold, RasterHeight::Size24),
            Self::Bold => (FontWeight::Bold, RasterHeight::Size16),
            Self::Plain => (FontWeight::Regular, RasterHeight::Size16),
        }
    }

    /// Height of a line, in pixels.
    pub fn height(self) -> u32 {
        match self {
            Self::Heading => 24,
            Self::Bold | Self::Plain => 16,
        }
    }

    /// Width of a text, in pixels.
    pub fn width(self, text: &str) -> u32 {
        u32::try_from(text.chars().count() * self.character_width()).unwrap_or(u32::MAX)
    }

    fn character_width(self) -> usize {
        let (weight, height) = self.bitmaps();
        get_raster_width(weight, height)
    }
}

/// Writes one line, (`x`, `y`) being its upper left corner.
pub fn write(canvas: &mut Canvas, x: u32, y: u32, text: &str, style: Style, colour: Colour) {
    let (weight, height) = style.bitmaps();
    let mut left = x;
    for character in text.chars() {
        let letter = get_raster(character, weight, height).or_else(|| get_raster(SUBSTITUTE, weight, height));
        if let Some(letter) = letter {
            for (row, shares) in (y..).zip(letter.rows()) {
                for (column, &share) in (left..).zip(shares) {
                    canvas.blend(column, row, colour, share);
                }
            }
        }
        left = left.saturating_add(style.width(" "));
    }
}

/// `text`, shortened to what fits into `width` pixels.
pub fn fitted(text: &str, style: Style, width: u32) -> String {
    if style.width(text) <= width {
        return text.to_owned();
    }
    let characters = width as usize / style.character_width();
    let kept: String = text.chars().take(characters.saturating_sub(2)).collect();
    format!("{}..", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::super::canvas::{BLACK, WHITE};
    use super::*;

    fn written(text: &str) -> RgbImage {
        let mut canvas = Canvas::new(100, 16);
        write(&mut canvas, 0, 0, text, Style::Plain, BLACK);
        canvas.into_picture()
    }

    #[test]
    fn text_takes_the_room_that_its_width_says() {
        let picture = written("mmm");
        let is_painted = |x: &u32| (0..16).any(|y| picture.get_pixel(*x, y) != &WHITE);
        let columns: Vec<u32> = (0..100).filter(is_painted).collect();
        let width = Style::Plain.width("mmm");
        assert!(columns.iter().all(|&x| x < width), "{columns:?}");
        assert!(columns.iter().any(|&x| x >= width * 2 / 3), "{columns:?}");
        assert!(written(" ").pixels().all(|pixel| *pixel == WHITE));
    }

    #[test]
    fn characters_that_the_font_lacks_are_shown_as_a_question_mark() {
        assert_eq!(written("\u{4e00}"), written("?"));
        assert_ne!(written("×"), written("?"));
    }

    #[test]
    fn text_is_shortened_to_the_width() {
        let width = Style::Plain.width("Ankle boot");
        assert_eq!(fitted("Ankle boot", Style::Plain, width), "Ankle boot");
        let shortened = fitted("Golden retriever", Style::Plain, width);
        assert_eq!(shortened, "Golden r..");
        assert!(Style::Plain.width(&shortened) <= width);
    }
}
