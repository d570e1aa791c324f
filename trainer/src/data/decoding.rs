//! Decoding of images of a data set. Decoders are others' code, which meets whatever lies in a folder: an image at which one
//! panics is unusable, as a corrupt one is, instead of ending the thread that works on it and all that waits for it.

use std::panic::{UnwindSafe, catch_unwind};

use image::error::{DecodingError, ImageFormatHint};
use model::ColorMode;
use model::image::{ImageError, Limits, Pixels};

/// An image's pixels.
///
/// # Errors
/// As [`model::image::decode`], and where the decoder panics.
pub(super) fn decode(bytes: &[u8], color: ColorMode, limits: Limits) -> Result<Pixels, ImageError> {
    guarded(bytes, || model::image::decode(bytes, color, limits))
}

/// An image's width and height, by its header.
///
/// # Errors
/// As [`model::image::dimensions`], and where the decoder panics.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    guarded(bytes, || model::image::dimensions(bytes))
}

fn guarded<T>(
    bytes: &[u8],
    decode: impl FnOnce() -> Result<T, ImageError> + UnwindSafe,
) -> Result<T, ImageError> {
    catch_unwind(decode).unwrap_or_else(|_| {
        let format = image::guess_format(bytes).map_or(ImageFormatHint::Unknown, ImageFormatHint::Exact);
        let error = DecodingError::new(format, "the decoder failed (it panicked)");
        Err(image::ImageError::Decoding(error).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn a_decoder_that_panics_has_found_a_corrupt_image() {
        let error = guarded(b"\x89PNG\r\n\x1a\n", || -> Result<(), _> {
            panic!("index out of bounds")
        })
        .unwrap_err();
        assert!(matches!(error, ImageError::Decode(_)), "{error:?}");
        let reason = error.source().unwrap().to_string();
        assert!(
            reason.contains("Png") && reason.contains("the decoder failed"),
            "{reason}"
        );
        let corrupt = guarded(b"", || model::image::dimensions(b"")).unwrap_err();
        assert!(matches!(corrupt, ImageError::UnknownFormat), "{corrupt:?}");
        assert_eq!(guarded(b"", || Ok(7)).unwrap(), 7);
    }
}
