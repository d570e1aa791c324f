//! Encoded images (JPEG, PNG, WebP, BMP, TIFF) to pixels, as Pillow's `convert` makes them.

use std::io::Cursor;

use image::error::{DecodingError, ImageFormatHint};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{ImageError, Limits, Pixels, luma};
use crate::preprocessing::ColorMode;

/// Decodes an image, guessing its format from its first bytes.
///
/// Pixels are those of Pillow's `convert("RGB")`, and luma is made of them: transparency is dropped; colours of 16 bits keep
/// their upper 8, grey of 16 bits becomes white from 255 on; CMYK is taken for Adobe's; an orientation in EXIF is not
/// applied.
///
/// # Errors
/// [`ImageError`]; an image past the limits is refused before it is decoded.
pub fn decode(bytes: &[u8], color: ColorMode, limits: Limits) -> Result<Pixels, ImageError> {
    check_bytes(bytes, limits)?;
    if let Some(decoder) = jpeg(bytes)? {
        return decode_jpeg(decoder, bytes, color, limits);
    }
    let mut decoder = decoder(bytes)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    // A decoder's own buffers: at most 16 bytes a pixel (float32 RGBA), twice, and some for tables.
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.pixels.saturating_mul(32).saturating_add(1 << 24));
    decoder.set_limits(decoder_limits)?;
    let data = match in_8_bits(DynamicImage::from_decoder(decoder)?) {
        DynamicImage::ImageLuma8(grey) => in_color(grey.into_raw(), ColorMode::Grayscale, color),
        decoded => in_color(decoded.into_rgb8().into_raw(), ColorMode::Rgb, color),
    };
    Ok(Pixels {
        width,
        height,
        color,
        data,
    })
}

/// Width and height of an encoded image, by its header.
///
/// # Errors
/// [`ImageError`] for what is no image.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    match jpeg(bytes)? {
        Some(decoder) => jpeg_size(&decoder),
        None => Ok(decoder(bytes)?.dimensions()),
    }
}

/// The name of the format that an image's first bytes tell, such as `JPEG`.
pub fn format_name(bytes: &[u8]) -> Option<&'static str> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => Some("JPEG"),
        ImageFormat::Png => Some("PNG"),
        ImageFormat::WebP => Some("WebP"),
        ImageFormat::Bmp => Some("BMP"),
        ImageFormat::Tiff => Some("TIFF"),
        _ => None,
    }
}

fn check_bytes(bytes: &[u8], limits: Limits) -> Result<(), ImageError> {
    if bytes.len() > limits.bytes {
        return Err(ImageError::TooManyBytes {
            found: bytes.len(),
            limit: limits.bytes,
        });
    }
    Ok(())
}

fn check_size(width: u32, height: u32, limits: Limits) -> Result<(), ImageError> {
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
    Ok(())
}

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_, ImageError> {
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| ImageError::Decode(image::ImageError::IoError(error)))?;
    if reader.format().is_none() {
        return Err(ImageError::UnknownFormat);
    }
    Ok(reader.into_decoder()?)
}

type Jpeg<'a> = JpegDecoder<ZCursor<&'a [u8]>>;

/// A decoder that has read the header, where an image is a JPEG. The JPEG decoder is used without the `image` crate, which
/// copies the file and reads its header twice.
fn jpeg(bytes: &[u8]) -> Result<Option<Jpeg<'_>>, ImageError> {
    if !matches!(image::guess_format(bytes), Ok(ImageFormat::Jpeg)) {
        return Ok(None);
    }
    // As libjpeg, it goes on after errors in the data.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(invalid_jpeg)?;
    Ok(Some(decoder))
}

fn jpeg_size(decoder: &Jpeg<'_>) -> Result<(u32, u32), ImageError> {
    let info = decoder.info().ok_or(ImageError::Truncated)?;
    Ok((u32::from(info.width), u32::from(info.height)))
}

fn decode_jpeg(
    mut decoder: Jpeg<'_>,
    bytes: &[u8],
    color: ColorMode,
    limits: Limits,
) -> Result<Pixels, ImageError> {
    let (width, height) = jpeg_size(&decoder)?;
    check_size(width, height, limits)?;
    if !is_complete(bytes) {
        return Err(ImageError::Truncated);
    }
    let found = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => ColorMode::Grayscale,
        _ => ColorMode::Rgb,
    };
    let output = match found {
        ColorMode::Grayscale => ColorSpace::Luma,
        ColorMode::Rgb => ColorSpace::RGB,
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(output));
    let data = decoder.decode().map_err(invalid_jpeg)?;
    Ok(Pixels {
        width,
        height,
        color,
        data: in_color(data, found, color),
    })
}

/// Whether a JPEG has its end marker. The decoder fills up with grey what is missing of an image, and Pillow refuses it.
/// Within a scan's data no byte of a marker follows 0xff.
fn is_complete(bytes: &[u8]) -> bool {
    let mut place = 2;
    // Segments before the first scan, in one of which a smaller image may lie.
    while let Some(&[marker_start, marker, high, low]) = bytes.get(place..place + 4) {
        if marker_start != 0xff || marker == 0xff {
            place += 1;
        } else if marker == 0xda {
            break;
        } else {
            place += 2 + usize::from(u16::from_be_bytes([high, low]));
        }
    }
    let rest = bytes.get(place..).unwrap_or_default();
    rest.windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}

#[expect(clippy::needless_pass_by_value, reason = "it is mapped over errors")]
fn invalid_jpeg(error: DecodeErrors) -> ImageError {
    let format = ImageFormatHint::Exact(ImageFormat::Jpeg);
    // It ends with a new line.
    let reason = error.to_string().trim().to_owned();
    ImageError::Decode(image::ImageError::Decoding(DecodingError::new(format, reason)))
}

/// Values of 16 bits as Pillow takes them: of colours and of grey with transparency the upper 8 bits, grey at most 255.
fn in_8_bits(decoded: DynamicImage) -> DynamicImage {
    let upper = |values: &[u16]| values.iter().map(|value| (value >> 8) as u8).collect::<Vec<u8>>();
    let (width, height) = (decoded.width(), decoded.height());
    let made = match &decoded {
        DynamicImage::ImageLuma16(grey) => {
            let values = grey.as_raw().iter().map(|&value| value.min(255) as u8).collect();
            image::GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8)
        }
        DynamicImage::ImageLumaA16(grey) => {
            let values = upper(grey.as_raw()).into_iter().step_by(2).collect();
            image::GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8)
        }
        DynamicImage::ImageRgb16(colors) => {
            image::RgbImage::from_raw(width, height, upper(colors.as_raw())).map(DynamicImage::ImageRgb8)
        }
        DynamicImage::ImageRgba16(colors) => {
            image::RgbaImage::from_raw(width, height, upper(colors.as_raw())).map(DynamicImage::ImageRgba8)
        }
        DynamicImage::ImageLumaA8(_) => Some(DynamicImage::ImageLuma8(decoded.to_luma8())),
        _ => None,
    };
    made.unwrap_or(decoded)
}

fn in_color(data: Vec<u8>, found: ColorMode, wanted: ColorMode) -> Vec<u8> {
    match (found, wanted) {
        (ColorMode::Grayscale, ColorMode::Rgb) => {
            let mut colors = Vec::with_capacity(3 * data.len());
            for &grey in &data {
                colors.extend_from_slice(&[grey; 3]);
            }
            colors
        }
        (ColorMode::Rgb, ColorMode::Grayscale) => luma(&data),
        _ => data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

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

    fn jpeg_bytes() -> Vec<u8> {
        let image = RgbImage::from_fn(64, 48, |x, y| Rgb([4 * x as u8, 5 * y as u8, 200]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_jpeg_that_ends_too_early_is_refused() {
        let whole = jpeg_bytes();
        let pixels = decode(&whole, ColorMode::Rgb, LIMITS).unwrap();
        assert_eq!(
            (pixels.width, pixels.height, pixels.data.len()),
            (64, 48, 64 * 48 * 3)
        );
        assert_eq!(dimensions(&whole).unwrap(), (64, 48));
        assert_eq!(format_name(&whole), Some("JPEG"));
        for length in 0..whole.len() {
            assert!(
                decode(&whole[..length], ColorMode::Rgb, LIMITS).is_err(),
                "{length}"
            );
        }
        // A smaller image in a segment of the header doesn't count as the end.
        let mut nested = whole[..2].to_vec();
        nested.extend([0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9]);
        nested.extend(&whole[2..]);
        assert_eq!(decode(&nested, ColorMode::Rgb, LIMITS).unwrap(), pixels);
        assert!(matches!(
            decode(&nested[..nested.len() - 2], ColorMode::Rgb, LIMITS),
            Err(ImageError::Truncated)
        ));
    }

    #[test]
    fn a_jpeg_of_too_many_pixels_is_refused_by_its_header() {
        let mut bomb = jpeg_bytes();
        let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bomb[frame + 5..frame + 9].fill(0xff);
        let error = decode(&bomb, ColorMode::Rgb, LIMITS).unwrap_err();
        assert!(matches!(
            error,
            ImageError::TooManyPixels {
                width: 65_535,
                height: 65_535,
                ..
            }
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), start in 0_usize..5) {
            let starts: [&[u8]; 5] = [&[], &[0xff, 0xd8, 0xff], b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"];
            bytes.splice(0..0, starts[start].iter().copied());
            let _ = decode(&bytes, ColorMode::Rgb, LIMITS);
            let _ = dimensions(&bytes);
        }

        #[test]
        fn damaged_jpegs_are_decoded_or_refused(damage in proptest::collection::vec((0_usize..700, any::<u8>()), 1..8)) {
            let mut bytes = jpeg_bytes();
            for (place, value) in damage {
                let length = bytes.len();
                bytes[place % length] = value;
            }
            if let Ok(pixels) = decode(&bytes, ColorMode::Rgb, LIMITS) {
                prop_assert_eq!(pixels.data.len(), (pixels.width * pixels.height * 3) as usize);
            }
        }
    }
}
