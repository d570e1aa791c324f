//! Decodes images (JPEG, PNG, WebP, BMP, TIFF) and brings them to a network's input size.
//!
//! Sizes are checked against [`Limits`] before anything of that size is allocated: a small file can claim to be huge.

mod decoding;
mod geometry;

pub use decoding::{decode, dimensions, format_name};
pub use geometry::{CropBox, centre};

use thiserror::Error;

use crate::preprocessing::ColorMode;

/// What an image may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the encoded image.
    pub bytes: usize,
    /// Width times height of the decoded image.
    pub pixels: u64,
}

impl Default for Limits {
    /// 32 MiB encoded, 64 megapixels decoded.
    fn default() -> Self {
        Self {
            bytes: 32 << 20,
            pixels: 64 << 20,
        }
    }
}

/// Why an image can't be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// More bytes than allowed.
    #[error("the image has {found} bytes, at most {limit} are allowed")]
    TooManyBytes {
        /// The image's.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// More pixels than allowed.
    #[error("the image has {width}x{height} pixels, at most {limit} in all are allowed")]
    TooManyPixels {
        /// The image's width.
        width: u32,
        /// The image's height.
        height: u32,
        /// The limit.
        limit: u64,
    },
    /// Nothing that a decoder knows.
    #[error("not an image in a format that is read here (JPEG, PNG, WebP, BMP, TIFF)")]
    UnknownFormat,
    /// A damaged image, or one of an unsupported kind.
    #[error("the image can't be decoded")]
    Decode(#[source] image::ImageError),
    /// A JPEG without its end.
    #[error("the image ends too early")]
    Truncated,
    /// An image that says that it is larger than any decoder would take.
    #[error("decoding the image would take more memory than is allowed")]
    TooLarge(#[source] image::ImageError),
    /// The resizer refused.
    #[error("the image can't be resized: {0}")]
    Resize(String),
    /// An image without pixels, or whose proportions leave none or make too many.
    #[error(
        "the image has {width}x{height} pixels: resizing would leave nothing of it, or make it too large"
    )]
    Empty {
        /// The image's width.
        width: u32,
        /// The image's height.
        height: u32,
    },
}

impl From<image::ImageError> for ImageError {
    fn from(error: image::ImageError) -> Self {
        match error {
            image::ImageError::Limits(_) => Self::TooLarge(error),
            error => Self::Decode(error),
        }
    }
}

/// 8-bit pixels, row by row, channels last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// 3 (RGB) or 1 (grey) bytes a pixel.
    pub color: ColorMode,
    /// `height · width · channels` bytes.
    pub data: Vec<u8>,
}

impl Pixels {
    /// The same image in other colours: grey is repeated three times, colours become their ITU-R 601 luma.
    #[must_use]
    pub fn in_color(self, color: ColorMode) -> Self {
        let data = match (self.color, color) {
            (ColorMode::Grayscale, ColorMode::Rgb) => self.data.iter().flat_map(|&grey| [grey; 3]).collect(),
            (ColorMode::Rgb, ColorMode::Grayscale) => luma(&self.data),
            _ => self.data,
        };
        Self { color, data, ..self }
    }
}

/// ITU-R 601 luma in Pillow's fixed-point arithmetic.
fn luma(rgb: &[u8]) -> Vec<u8> {
    let grey = |pixel: &[u8]| {
        let (red, green, blue) = (u32::from(pixel[0]), u32::from(pixel[1]), u32::from(pixel[2]));
        // At most (19595 + 38470 + 7471) · 255 + 32768 = 255.5 · 65536, so the shifted value fits a byte.
        ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8
    };
    rgb.chunks_exact(3).map(grey).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_the_luma_of_pillow() {
        // Pillow: Image.new("RGB", (1, 1), (255, 0, 0)).convert("L") is 76, green 150, blue 29, white 255.
        assert_eq!(
            luma(&[255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]),
            [76, 150, 29, 255]
        );
    }
}
