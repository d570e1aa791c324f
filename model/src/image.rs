//! Decodes images (JPEG, PNG, WebP, BMP, TIFF) and brings them to a network's input size.
//!
//! Sizes are checked against [`Limits`] before anything of that size is allocated: a small file can claim to be huge.

use std::io::Cursor;

use fast_image_resize as fir;
use fast_image_resize::images::Image as ResizeImage;
use image::{DynamicImage, ImageDecoder, ImageReader};
use thiserror::Error;

use crate::architecture::InputShape;
use crate::preprocessing::{ColorMode, Preprocessing, Resize};

/// What an image may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the encoded image.
    pub bytes: usize,
    /// Width times height of the decoded image.
    pub pixels: u64,
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
    Decode(#[from] image::ImageError),
    /// The resizer refused.
    #[error("the image can't be resized: {0}")]
    Resize(String),
    /// An image without pixels, or whose proportions leave none.
    #[error("the image has {width}x{height} pixels: nothing is left of it after resizing")]
    Empty {
        /// The image's width.
        width: u32,
        /// The image's height.
        height: u32,
    },
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

/// Decodes an image, guessing its format from its first bytes. Transparency is dropped and 16-bit values are scaled, as
/// Pillow's `convert("RGB")` does.
///
/// # Errors
/// [`ImageError`]; an image past the limits is refused before it is decoded.
pub fn decode(bytes: &[u8], color: ColorMode, limits: Limits) -> Result<Pixels, ImageError> {
    if bytes.len() > limits.bytes {
        return Err(ImageError::TooManyBytes {
            found: bytes.len(),
            limit: limits.bytes,
        });
    }
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| ImageError::Decode(image::ImageError::IoError(error)))?;
    if reader.format().is_none() {
        return Err(ImageError::UnknownFormat);
    }
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        return Err(ImageError::TooManyPixels {
            width,
            height,
            limit: limits.pixels,
        });
    }
    if width == 0 || height == 0 {
        return Err(ImageError::Empty { width, height });
    }
    // A decoder's own buffers: at most 16 bytes a pixel (float32 RGBA), twice, and some for tables.
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.pixels.saturating_mul(32).saturating_add(1 << 24));
    decoder.set_limits(decoder_limits)?;
    let decoded = DynamicImage::from_decoder(decoder)?;
    let data = match (color, decoded) {
        (ColorMode::Grayscale, DynamicImage::ImageLuma8(grey)) => grey.into_raw(),
        (ColorMode::Grayscale, decoded) if decoded.color().has_color() => luma(decoded.into_rgb8().as_raw()),
        (ColorMode::Grayscale, decoded) => decoded.into_luma8().into_raw(),
        (ColorMode::Rgb, decoded) => decoded.into_rgb8().into_raw(),
    };
    Ok(Pixels {
        width,
        height,
        color,
        data,
    })
}

impl Preprocessing {
    /// Resizes and crops an image to the network's input size: `[H, W, C]` bytes for [`Preprocessing::normalise`].
    ///
    /// # Errors
    /// [`ImageError`] where nothing of the image is left.
    pub fn fit(&self, image: Pixels, input: InputShape) -> Result<Vec<u8>, ImageError> {
        let target = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (height, width) = (target(input.height), target(input.width));
        let (resized_width, resized_height) = match self.resize {
            Resize::Stretch => (width, height),
            Resize::ShortSide { size } => short_side(image.width, image.height, target(size)),
        };
        let image = resize(image, resized_width, resized_height)?;
        Ok(centre_crop(&image, width, height))
    }
}

/// torchvision's `Resize(size)`: the shorter side becomes `size`, the longer one in proportion, rounded down.
fn short_side(width: u32, height: u32, size: u32) -> (u32, u32) {
    let longer = |long: u32, short: u32| {
        let scaled = u64::from(size) * u64::from(long) / u64::from(short.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    if width <= height {
        (size, longer(height, width))
    } else {
        (longer(width, height), size)
    }
}

fn resize(image: Pixels, width: u32, height: u32) -> Result<Pixels, ImageError> {
    if (image.width, image.height) == (width, height) {
        return Ok(image);
    }
    // A strip of 1x10,000 pixels would grow by its proportions; the crop keeps its middle only.
    if u64::from(width) * u64::from(height) > 1 << 28 {
        return Err(ImageError::Empty {
            width: image.width,
            height: image.height,
        });
    }
    let pixel_type = match image.color {
        ColorMode::Rgb => fir::PixelType::U8x3,
        ColorMode::Grayscale => fir::PixelType::U8,
    };
    let color = image.color;
    let failed = |error: &dyn std::error::Error| ImageError::Resize(error.to_string());
    let source = ResizeImage::from_vec_u8(image.width, image.height, image.data, pixel_type)
        .map_err(|error| failed(&error))?;
    let mut resized = ResizeImage::new(width, height, pixel_type);
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
        .use_alpha(false);
    fir::Resizer::new()
        .resize(&source, &mut resized, &options)
        .map_err(|error| failed(&error))?;
    Ok(Pixels {
        width,
        height,
        color,
        data: resized.into_vec(),
    })
}

/// torchvision's `CenterCrop`; the image is at least as large as the crop, as `Preprocessing::check` makes sure.
fn centre_crop(image: &Pixels, width: u32, height: u32) -> Vec<u8> {
    let offset = |whole: u32, part: u32| {
        // Python's round(): halves go to the even neighbour.
        let margin = whole.saturating_sub(part);
        let half = margin / 2;
        (if margin % 2 == 1 && half % 2 == 1 {
            half + 1
        } else {
            half
        }) as usize
    };
    let channels = image.color.channels();
    let (left, top) = (offset(image.width, width), offset(image.height, height));
    let row = image.width as usize * channels;
    let rows = image.data.chunks_exact(row).skip(top).take(height as usize);
    rows.flat_map(|row| &row[left * channels..(left + width as usize) * channels])
        .copied()
        .collect()
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
    use image::{ImageFormat, Rgb, RgbImage};

    const LIMITS: Limits = Limits {
        bytes: 1 << 20,
        pixels: 1 << 16,
    };

    fn png(width: u32, height: u32) -> Vec<u8> {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 200]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_png_decodes_to_its_pixels() {
        let pixels = decode(&png(3, 2), ColorMode::Rgb, LIMITS).unwrap();
        assert_eq!((pixels.width, pixels.height), (3, 2));
        assert_eq!(pixels.data[3..6], [1, 0, 200]);
    }

    #[test]
    fn grey_is_the_luma_of_pillow() {
        // Pillow: Image.new("RGB", (1, 1), (255, 0, 0)).convert("L") is 76, green 150, blue 29, white 255.
        assert_eq!(
            luma(&[255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]),
            [76, 150, 29, 255]
        );
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let error = decode(b"plain text, no image", ColorMode::Rgb, LIMITS).unwrap_err();
        assert!(matches!(error, ImageError::UnknownFormat));
        let mut truncated = png(30, 30);
        truncated.truncate(truncated.len() / 2);
        assert!(matches!(
            decode(&truncated, ColorMode::Rgb, LIMITS),
            Err(ImageError::Decode(_))
        ));
        assert!(decode(&[], ColorMode::Rgb, LIMITS).is_err());
    }

    #[test]
    fn limits_hold_before_decoding() {
        // The header claims 60,000 x 60,000 pixels; the data for them isn't even there.
        let mut bomb = png(2, 2);
        bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
        assert!(decode(&bomb, ColorMode::Rgb, LIMITS).is_err());
        let error = decode(&png(300, 300), ColorMode::Rgb, LIMITS).unwrap_err();
        assert!(matches!(error, ImageError::TooManyPixels { width: 300, .. }));
        let tight = Limits { bytes: 10, ..LIMITS };
        assert!(matches!(
            decode(&png(2, 2), ColorMode::Rgb, tight),
            Err(ImageError::TooManyBytes { .. })
        ));
    }

    #[test]
    fn fitting_resizes_the_short_side_and_crops_the_centre() {
        let input = InputShape {
            channels: 3,
            height: 4,
            width: 4,
        };
        let preprocessing = Preprocessing {
            resize: Resize::ShortSide { size: 4 },
            ..Preprocessing::unit_range(input)
        };
        let pixels = decode(&png(12, 4), ColorMode::Rgb, LIMITS).unwrap();
        let fitted = preprocessing.fit(pixels, input).unwrap();
        assert_eq!(fitted.len(), 48);
        // The crop starts at column 4, the red value counts columns.
        assert_eq!(fitted[0], 4);
        let strip = decode(&png(100, 50), ColorMode::Rgb, LIMITS).unwrap();
        assert_eq!(preprocessing.fit(strip, input).unwrap().len(), 48);
    }

    #[test]
    fn crops_round_as_torchvision() {
        assert_eq!(short_side(500, 375, 256), (341, 256));
        assert_eq!(short_side(375, 500, 256), (256, 341));
    }
}
