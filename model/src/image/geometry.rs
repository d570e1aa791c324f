//! Resizing and cropping, as torchvision's transforms do them to Pillow's images.

use fast_image_resize as fir;
use fast_image_resize::images::{CroppedImage, Image as ResizeImage, ImageRef};

use super::{ImageError, Pixels};
use crate::architecture::InputShape;
use crate::preprocessing::{ColorMode, Preprocessing, Resize};

/// Pixels of a resized image at most, as many as of a decoded one. A strip of 1x10,000 pixels grows by its proportions, though
/// the crop keeps its middle only.
const MAX_RESIZED: u64 = 64 << 20;

/// A part of an image, within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// In pixels from the left.
    pub left: u32,
    /// In pixels from the top.
    pub top: u32,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// Where the centre crop of so many pixels begins in a row or column of `whole` pixels, as torchvision's `CenterCrop`
/// rounds it.
pub fn centre(whole: u32, part: u32) -> i64 {
    // Python's round(): halves go to the even neighbour.
    let margin = i64::from(whole.saturating_sub(part));
    let half = margin / 2;
    if margin % 2 == 1 && half % 2 == 1 {
        half + 1
    } else {
        half
    }
}

impl Preprocessing {
    /// Resizes and crops an image to the network's input size: `[H, W, C]` bytes for [`Preprocessing::normalise`].
    ///
    /// # Errors
    /// [`ImageError`] where nothing of the image is left.
    pub fn fit(&self, image: Pixels, input: InputShape) -> Result<Vec<u8>, ImageError> {
        let (width, height) = (length(input.width), length(input.height));
        let image = self.resize(image, input)?;
        if (image.width, image.height) == (width, height) {
            return Ok(image.data);
        }
        let (left, top) = (centre(image.width, width), centre(image.height, height));
        Ok(image.window(left, top, width, height).data)
    }

    /// Resizes an image as [`Preprocessing::fit`] does before the crop.
    ///
    /// # Errors
    /// [`ImageError`] where nothing of the image is left.
    pub fn resize(&self, image: Pixels, input: InputShape) -> Result<Pixels, ImageError> {
        let (width, height) = match self.resize {
            Resize::Stretch => (length(input.width), length(input.height)),
            Resize::ShortSide { size } => short_side(image.width, image.height, length(size)),
        };
        image.resized(width, height)
    }
}

impl Pixels {
    /// The image in another size: antialiased bilinear, as Pillow's `resize`.
    ///
    /// # Errors
    /// [`ImageError`] where nothing of the image is left.
    pub fn resized(self, width: u32, height: u32) -> Result<Self, ImageError> {
        if (self.width, self.height) == (width, height) {
            return Ok(self);
        }
        let whole = CropBox {
            left: 0,
            top: 0,
            width: self.width,
            height: self.height,
        };
        self.crop_and_resize(whole, width, height)
    }

    /// A part of the image in another size: torchvision's `resized_crop`. Nothing outside of the part has any influence.
    ///
    /// # Errors
    /// [`ImageError`] where nothing of the image is left, or the part isn't within it.
    pub fn crop_and_resize(&self, part: CropBox, width: u32, height: u32) -> Result<Self, ImageError> {
        let empty = u64::from(width) * u64::from(height) == 0;
        if empty || u64::from(width) * u64::from(height) > MAX_RESIZED {
            let (width, height) = (self.width, self.height);
            return Err(ImageError::Empty { width, height });
        }
        let pixel_type = match self.color {
            ColorMode::Rgb => fir::PixelType::U8x3,
            ColorMode::Grayscale => fir::PixelType::U8,
        };
        let failed = |error: &dyn std::error::Error| ImageError::Resize(error.to_string());
        let source =
            ImageRef::new(self.width, self.height, &self.data, pixel_type).map_err(|error| failed(&error))?;
        let CropBox {
            left,
            top,
            width: part_width,
            height: part_height,
        } = part;
        let source =
            CroppedImage::new(&source, left, top, part_width, part_height).map_err(|error| failed(&error))?;
        let mut resized = ResizeImage::new(width, height, pixel_type);
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
            .use_alpha(false);
        fir::Resizer::new()
            .resize(&source, &mut resized, &options)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            width,
            height,
            color: self.color,
            data: resized.into_vec(),
        })
    }

    /// The part of the image that a window shows whose corner is at (`left`, `top`); black where it is outside.
    #[must_use]
    pub fn window(&self, left: i64, top: i64, width: u32, height: u32) -> Self {
        let channels = self.color.channels();
        let row_length = width as usize * channels;
        let mut data = vec![0; height as usize * row_length];
        let first = left.clamp(0, i64::from(self.width));
        let end = left
            .saturating_add(i64::from(width))
            .clamp(first, i64::from(self.width));
        for (row, output) in (0_i64..).zip(data.chunks_exact_mut(row_length.max(1))) {
            let y = top.saturating_add(row);
            if y < 0 || y >= i64::from(self.height) || first == end {
                continue;
            }
            let start = y as usize * self.width as usize;
            let seen = (start + first as usize) * channels..(start + end as usize) * channels;
            let place = (first - left) as usize * channels;
            output[place..place + seen.len()].copy_from_slice(&self.data[seen]);
        }
        Self {
            width,
            height,
            color: self.color,
            data,
        }
    }

    /// Exchanges left and right.
    pub fn mirror(&mut self) {
        let channels = self.color.channels();
        for row in self
            .data
            .chunks_exact_mut((self.width as usize * channels).max(1))
        {
            if channels == 1 {
                row.reverse();
                continue;
            }
            let (mut left, mut right) = (0, row.len());
            while left + 2 * channels <= right {
                right -= channels;
                let (before, after) = row.split_at_mut(right);
                before[left..left + channels].swap_with_slice(&mut after[..channels]);
                left += channels;
            }
        }
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Red counts columns, green counts rows.
    fn image(width: u32, height: u32) -> Pixels {
        let pixel = |index: u32| [(index % width) as u8, (index / width) as u8, 200];
        Pixels {
            width,
            height,
            color: ColorMode::Rgb,
            data: (0..width * height).flat_map(pixel).collect(),
        }
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
        let fitted = preprocessing.fit(image(12, 4), input).unwrap();
        assert_eq!(fitted.len(), 48);
        // The crop starts at column 4.
        assert_eq!(fitted[0], 4);
        assert_eq!(preprocessing.fit(image(100, 50), input).unwrap().len(), 48);
    }

    #[test]
    fn crops_round_as_torchvision() {
        assert_eq!(short_side(500, 375, 256), (341, 256));
        assert_eq!(short_side(375, 500, 256), (256, 341));
        assert_eq!(
            [centre(5, 4), centre(7, 4), centre(4, 4), centre(3, 4)],
            [0, 2, 0, 0]
        );
    }

    #[test]
    fn sizes_without_pixels_and_huge_ones_are_refused() {
        assert!(matches!(image(2, 2).resized(0, 5), Err(ImageError::Empty { .. })));
        assert!(matches!(
            image(2, 2).resized(1 << 15, 1 << 15),
            Err(ImageError::Empty { .. })
        ));
        // Its shorter side would grow to 256 pixels, its longer one to a million.
        let input = InputShape {
            channels: 3,
            height: 224,
            width: 224,
        };
        let photograph = Preprocessing::imagenet(input);
        assert!(matches!(
            photograph.fit(image(1, 4096), input),
            Err(ImageError::Empty { .. })
        ));
        assert!(photograph.fit(image(1, 64), input).is_ok());
        let outside = CropBox {
            left: 1,
            top: 0,
            width: 2,
            height: 2,
        };
        assert!(matches!(
            image(2, 2).crop_and_resize(outside, 4, 4),
            Err(ImageError::Resize(_))
        ));
    }

    #[test]
    fn what_lies_outside_of_a_part_has_no_influence() {
        let mut framed = image(20, 20);
        let part = CropBox {
            left: 5,
            top: 6,
            width: 7,
            height: 8,
        };
        let expected = framed.crop_and_resize(part, 9, 9).unwrap();
        for (index, pixel) in framed.data.chunks_exact_mut(3).enumerate() {
            if !(5..12).contains(&(index % 20)) || !(6..14).contains(&(index / 20)) {
                pixel.fill(0);
            }
        }
        assert_eq!(framed.crop_and_resize(part, 9, 9).unwrap(), expected);
        assert_eq!(image(20, 20).window(5, 6, 7, 8).resized(9, 9).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn a_window_shows_the_image_and_black(
            (width, height) in (1_u32..9, 1_u32..9), (left, top) in (-12_i64..12, -12_i64..12), (w, h) in (1_u32..9, 1_u32..9),
        ) {
            let window = image(width, height).window(left, top, w, h);
            for (index, pixel) in window.data.chunks_exact(3).enumerate() {
                let (x, y) = (left + index as i64 % i64::from(w), top + index as i64 / i64::from(w));
                let inside = (0..i64::from(width)).contains(&x) && (0..i64::from(height)).contains(&y);
                let expected = if inside { [x as u8, y as u8, 200] } else { [0; 3] };
                prop_assert_eq!(pixel, expected);
            }
        }

        #[test]
        fn mirroring_exchanges_left_and_right(width in 1_u32..9, height in 1_u32..5) {
            let mut mirrored = image(width, height);
            mirrored.mirror();
            for (index, pixel) in mirrored.data.chunks_exact(3).enumerate() {
                let (x, y) = (index as u32 % width, index as u32 / width);
                prop_assert_eq!(pixel, [(width - 1 - x) as u8, y as u8, 200]);
            }
            let mut grey = image(width, height).in_color(ColorMode::Grayscale);
            let before = grey.clone();
            grey.mirror();
            prop_assert_eq!(grey.data[0], before.data[width as usize - 1]);
            grey.mirror();
            prop_assert_eq!(grey, before);
        }
    }
}
