//! How an image becomes a network's input: resize, centre crop, scale to 0..1, subtract the mean, divide by the
//! standard deviation.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::architecture::InputShape;

/// What is done to an image before the network sees it. The centre crop is always to the network's input size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// The colours that the network expects.
    pub color: ColorMode,
    /// What is done to images of another size, before the centre crop.
    pub resize: Resize,
    /// Per channel, of values in 0..1.
    pub mean: Vec<f32>,
    /// Per channel, of values in 0..1; positive.
    pub std: Vec<f32>,
}

/// The colours that a network expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColorMode {
    /// Red, green, blue; grey images are repeated three times.
    Rgb,
    /// One channel; colour images become their ITU-R 601 luma, as Pillow's `convert("L")` does.
    Grayscale,
}

/// What is done to images of another size. Resizing is antialiased bilinear, as Pillow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Resize {
    /// The shorter side becomes `size`, keeping the proportions: torchvision's `Resize(size)`.
    ShortSide {
        /// In pixels; at least the input's sides.
        size: usize,
    },
    /// The image is stretched to the network's input size.
    Stretch,
}

/// A preprocessing that doesn't fit its network, or pixels that don't fit their preprocessing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PreprocessingError {
    /// Mean and standard deviation don't have one value per channel.
    #[error("preprocessing: `{field}` has {found} values, the network's input has {expected} channels")]
    Channels {
        /// Which of them.
        field: &'static str,
        /// How many values it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// A standard deviation that can't be divided by.
    #[error("preprocessing: every `std` must be positive and every `mean` finite")]
    NotPositive,
    /// The resized image would be smaller than the crop.
    #[error("preprocessing: resizing the short side to {size} leaves less than the {height}x{width} input")]
    CropTooLarge {
        /// The short side.
        size: usize,
        /// The input's height.
        height: usize,
        /// The input's width.
        width: usize,
    },
    /// A buffer of pixels or of input values of the wrong length.
    #[error("preprocessing: {found} values, expected {expected} (height x width x channels)")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

impl ColorMode {
    /// Channels of a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Grayscale => 1,
        }
    }
}

impl Preprocessing {
    /// ImageNet's: short side 256 (in proportion for other input sizes), centre crop, ImageNet's mean and deviation.
    pub fn imagenet(input: InputShape) -> Self {
        Self {
            color: ColorMode::Rgb,
            resize: Resize::ShortSide {
                size: input.height.max(input.width) * 256 / 224,
            },
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// Values scaled to 0..1 and nothing more; images of another size are stretched.
    pub fn unit_range(input: InputShape) -> Self {
        Self {
            color: if input.channels == 1 {
                ColorMode::Grayscale
            } else {
                ColorMode::Rgb
            },
            resize: Resize::Stretch,
            mean: vec![0.0; input.channels],
            std: vec![1.0; input.channels],
        }
    }

    /// Whether this preprocessing gives what a network of that input shape takes.
    ///
    /// # Errors
    /// [`PreprocessingError`] with what doesn't fit.
    pub fn check(&self, input: InputShape) -> Result<(), PreprocessingError> {
        let counts = [
            ("mean", self.mean.len()),
            ("std", self.std.len()),
            ("color", self.color.channels()),
        ];
        if let Some((field, found)) = counts.into_iter().find(|&(_, count)| count != input.channels) {
            return Err(PreprocessingError::Channels {
                field,
                found,
                expected: input.channels,
            });
        }
        let invertible = |std: &f32| std.is_finite() && *std > 0.0;
        if !self.std.iter().all(invertible) || !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(PreprocessingError::NotPositive);
        }
        let InputShape { height, width, .. } = input;
        match self.resize {
            Resize::ShortSide { size } if size < height.max(width) => {
                Err(PreprocessingError::CropTooLarge { size, height, width })
            }
            _ => Ok(()),
        }
    }

    /// Turns pixels of the input's size, `[H, W, C]` bytes, into one image of the network's input, `[C, H, W]` floats:
    /// `(value / 255 − mean) / std`. The trainer and the server both call this, so they see the same numbers.
    ///
    /// # Errors
    /// [`PreprocessingError::Length`] where a buffer's length is not that of the input shape.
    pub fn normalise(
        &self,
        pixels: &[u8],
        input: InputShape,
        output: &mut [f32],
    ) -> Result<(), PreprocessingError> {
        Self::check_lengths(pixels, input, output)?;
        let channels = input.channels;
        let mut planes: Vec<_> = self.planes(input, output).collect();
        // Nearly all images: once through memory, without a check at every value.
        if let [(red, reds), (green, greens), (blue, blues)] = planes.as_mut_slice() {
            let values = red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut());
            for (((red, green), blue), &[r, g, b]) in values.zip(pixels.as_chunks().0) {
                *red = reds[usize::from(r)];
                *green = greens[usize::from(g)];
                *blue = blues[usize::from(b)];
            }
            return Ok(());
        }
        for (channel, (plane, table)) in planes.into_iter().enumerate() {
            let pixels = pixels.iter().skip(channel).step_by(channels);
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(*pixel)];
            }
        }
        Ok(())
    }

    /// The same of pixels whose channels come first, `[C, H, W]` bytes.
    ///
    /// # Errors
    /// As [`Preprocessing::normalise`].
    pub fn normalise_planes(
        &self,
        pixels: &[u8],
        input: InputShape,
        output: &mut [f32],
    ) -> Result<(), PreprocessingError> {
        Self::check_lengths(pixels, input, output)?;
        let planes = pixels.chunks_exact(input.height * input.width);
        for ((plane, table), pixels) in self.planes(input, output).zip(planes) {
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = table[usize::from(*pixel)];
            }
        }
        Ok(())
    }

    fn check_lengths(pixels: &[u8], input: InputShape, output: &[f32]) -> Result<(), PreprocessingError> {
        let expected = input.channels * input.height * input.width;
        let mut found = [pixels.len(), output.len()].into_iter();
        match found.find(|&length| length != expected) {
            Some(found) => Err(PreprocessingError::Length { found, expected }),
            None => Ok(()),
        }
    }

    /// Every channel's part of `output`, with what becomes of every byte there: two divisions for each pixel would take
    /// longer than decoding some images.
    fn planes<'a>(
        &'a self,
        input: InputShape,
        output: &'a mut [f32],
    ) -> impl Iterator<Item = (&'a mut [f32], [f32; 256])> {
        let planes = output.chunks_exact_mut(input.height * input.width);
        planes.zip(&self.mean).zip(&self.std).map(|((plane, mean), std)| {
            let of_byte = |value| (value as f32 / 255.0 - mean) / std;
            (plane, std::array::from_fn(of_byte))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: InputShape = InputShape {
        channels: 3,
        height: 1,
        width: 2,
    };

    #[test]
    fn channels_are_separated_and_normalised() {
        let preprocessing = Preprocessing {
            mean: vec![0.0, 0.5, 1.0],
            std: vec![1.0, 0.5, 2.0],
            ..Preprocessing::unit_range(INPUT)
        };
        let mut output = [0.0; 6];
        preprocessing
            .normalise(&[255, 0, 255, 0, 255, 0], INPUT, &mut output)
            .unwrap();
        assert_eq!(output, [1.0, 0.0, -1.0, 1.0, 0.0, -0.5]);
        output.fill(0.0);
        preprocessing
            .normalise_planes(&[255, 0, 0, 255, 255, 0], INPUT, &mut output)
            .unwrap();
        assert_eq!(output, [1.0, 0.0, -1.0, 1.0, 0.0, -0.5]);
    }

    #[test]
    fn imagenet_resizes_to_256_for_224() {
        let input = InputShape {
            channels: 3,
            height: 224,
            width: 224,
        };
        let preprocessing = Preprocessing::imagenet(input);
        assert_eq!(preprocessing.resize, Resize::ShortSide { size: 256 });
        preprocessing.check(input).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let grey = Preprocessing::unit_range(InputShape {
            channels: 1,
            height: 4,
            width: 4,
        });
        let error = grey.check(INPUT).unwrap_err();
        assert_eq!(
            error,
            PreprocessingError::Channels {
                field: "mean",
                found: 1,
                expected: 3
            }
        );
        let mut zero = Preprocessing::unit_range(INPUT);
        zero.std[1] = 0.0;
        assert_eq!(zero.check(INPUT).unwrap_err(), PreprocessingError::NotPositive);
        let short = Preprocessing {
            resize: Resize::ShortSide { size: 1 },
            ..Preprocessing::unit_range(INPUT)
        };
        assert!(matches!(
            short.check(INPUT),
            Err(PreprocessingError::CropTooLarge { size: 1, .. })
        ));
    }
}
