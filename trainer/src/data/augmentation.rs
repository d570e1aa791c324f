//! How training images are varied at random: torchvision's RandomResizedCrop, random crops of padded images, shifts,
//! horizontal flips. Evaluation uses [`Preprocessing`] alone.

use std::fmt;
use std::str::FromStr;

use model::image::{CropBox, ImageError, Pixels};
use model::{InputShape, Preprocessing};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Pixels of padding or shift at most.
const MAX_PIXELS: usize = 4096;

/// What is done to a training image before it is normalised. The result always has the network's input size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Augmentation {
    /// Nothing but the preprocessing, as in evaluation.
    #[default]
    None,
    /// A part of the image, resized to the input: torchvision's `RandomResizedCrop`, as for ImageNet.
    RandomResizedCrop {
        /// Smallest and largest part of the image's area, in 0..1.
        #[serde(default = "default_scale")]
        scale: [f64; 2],
        /// Smallest and largest width over height of that part.
        #[serde(default = "default_ratio")]
        ratio: [f64; 2],
        /// Whether half of the images are mirrored.
        #[serde(default = "yes")]
        flip: bool,
    },
    /// The image is resized as in evaluation and framed in black; of that a crop of the input's size is drawn:
    /// torchvision's `RandomCrop(size, padding)`, as for CIFAR and TinyImageNet.
    PaddedCrop {
        /// The frame's width in pixels.
        padding: usize,
        /// Whether half of the images are mirrored.
        #[serde(default)]
        flip: bool,
    },
    /// The image is preprocessed as in evaluation, but that its centre is off by up to so many pixels both ways; what lies
    /// outside of the image is black.
    Shift {
        /// At most, to the left and to the right, up and down.
        pixels: usize,
        /// Whether half of the images are mirrored.
        #[serde(default)]
        flip: bool,
    },
}

/// An augmentation that can't be carried out.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("augmentation: {0}")]
pub struct AugmentationError(String);

/// One image's own random numbers: whatever thread varies it, whenever, they are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The run's.
    pub seed: u64,
    /// Counted from 0.
    pub epoch: usize,
    /// The image's in its split.
    pub index: usize,
}

impl Draw {
    fn generator(self) -> ChaCha8Rng {
        let mut seed = [0; 32];
        let words = [self.seed, self.epoch as u64, self.index as u64];
        for (bytes, word) in seed.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // Other numbers than those of the images' order, which come from the same seed.
        seed[24..].copy_from_slice(b"augments");
        ChaCha8Rng::from_seed(seed)
    }
}

impl Augmentation {
    /// torchvision's `RandomResizedCrop` with its defaults, and flips.
    pub fn random_resized_crop() -> Self {
        Self::RandomResizedCrop {
            scale: default_scale(),
            ratio: default_ratio(),
            flip: true,
        }
    }

    /// Whether it can be carried out.
    ///
    /// # Errors
    /// [`AugmentationError`] with what is out of its range.
    pub fn check(&self) -> Result<(), AugmentationError> {
        let fail = |message: String| Err(AugmentationError(message));
        let ordered = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
        match *self {
            Self::RandomResizedCrop { scale, .. } if !ordered(scale) || scale[1] > 1.0 => fail(format!(
                "scale is {scale:?}; it is the smallest and the largest part of the area, above 0 and at most 1"
            )),
            Self::RandomResizedCrop { ratio, .. } if !ordered(ratio) => fail(format!(
                "ratio is {ratio:?}; it is the smallest and the largest width over height, above 0"
            )),
            Self::PaddedCrop { padding: pixels, .. } | Self::Shift { pixels, .. } if pixels > MAX_PIXELS => {
                fail(format!("{pixels} pixels; at most {MAX_PIXELS} are allowed"))
            }
            _ => Ok(()),
        }
    }

    /// Whether every image is what evaluation would see.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Brings an image to the network's input size: `[H, W, C]` bytes for [`Preprocessing::normalise`].
    ///
    /// # Errors
    /// [`ImageError`] where nothing of the image is left.
    pub fn apply(
        &self,
        image: Pixels,
        preprocessing: &Preprocessing,
        input: InputShape,
        draw: Draw,
    ) -> Result<Vec<u8>, ImageError> {
        let generator = &mut draw.generator();
        let target = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (height, width) = (target(input.height), target(input.width));
        let (mut image, flip) = match *self {
            Self::None => return preprocessing.fit(image, input),
            Self::RandomResizedCrop { scale, ratio, flip } => {
                let part = draw_crop((image.width, image.height), scale, ratio, generator);
                (image.crop_and_resize(part, width, height)?, flip)
            }
            Self::PaddedCrop { padding, flip } => {
                let image = preprocessing.resize(image, input)?;
                let padding = padding as i64;
                let mut origin = |whole: u32, part: u32| {
                    let last = i64::from(whole) + 2 * padding - i64::from(part);
                    generator.random_range(0..=last.max(0)) - padding
                };
                let (top, left) = (origin(image.height, height), origin(image.width, width));
                (image.window(left, top, width, height), flip)
            }
            Self::Shift { pixels, flip } => {
                let image = preprocessing.resize(image, input)?;
                let pixels = pixels as i64;
                let mut origin = |whole: u32, part: u32| {
                    model::image::centre(whole, part) + generator.random_range(-pixels..=pixels)
                };
                let (top, left) = (origin(image.height, height), origin(image.width, width));
                (image.window(left, top, width, height), flip)
            }
        };
        if flip && generator.random_bool(0.5) {
            image.mirror();
        }
        Ok(image.data)
    }
}

/// The part of an image that torchvision's `RandomResizedCrop` would draw.
fn draw_crop(
    (width, height): (u32, u32),
    scale: [f64; 2],
    ratio: [f64; 2],
    generator: &mut ChaCha8Rng,
) -> CropBox {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..10 {
        let target = area * generator.random_range(scale[0]..=scale[1]);
        let aspect = generator.random_range(ratio[0].ln()..=ratio[1].ln()).exp();
        let w = (target * aspect).sqrt().round_ties_even();
        let h = (target / aspect).sqrt().round_ties_even();
        if w > 0.0 && w <= f64::from(width) && h > 0.0 && h <= f64::from(height) {
            let (w, h) = (w as u32, h as u32);
            return CropBox {
                top: generator.random_range(0..=height - h),
                left: generator.random_range(0..=width - w),
                width: w,
                height: h,
            };
        }
    }
    // The image is too long or too high for these ratios: as much of its centre as they allow.
    let of_image = f64::from(width) / f64::from(height);
    let rounded = |length: f64| (length.round_ties_even() as u32).max(1);
    let (w, h) = if of_image < ratio[0] {
        (width, rounded(f64::from(width) / ratio[0]).min(height))
    } else if of_image > ratio[1] {
        (rounded(f64::from(height) * ratio[1]).min(width), height)
    } else {
        (width, height)
    };
    CropBox {
        left: (width - w) / 2,
        top: (height - h) / 2,
        width: w,
        height: h,
    }
}

fn default_scale() -> [f64; 2] {
    [0.08, 1.0]
}

fn default_ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

fn yes() -> bool {
    true
}

/// As the command line takes it.
impl fmt::Display for Augmentation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.write_str("none"),
            Self::RandomResizedCrop { scale, ratio, flip } => {
                let flip = if *flip { "" } else { ",no-flip" };
                let ([a, b], [c, d]) = (scale, ratio);
                write!(
                    formatter,
                    "random-resized-crop:scale={a}..{b},ratio={c}..{d}{flip}"
                )
            }
            Self::PaddedCrop { padding, flip } => {
                let flip = if *flip { ",flip" } else { "" };
                write!(formatter, "padded-crop:{padding}{flip}")
            }
            Self::Shift { pixels, flip } => {
                let flip = if *flip { ",flip" } else { "" };
                write!(formatter, "shift:{pixels}{flip}")
            }
        }
    }
}

/// `none`, `random-resized-crop[:scale=A..B][,ratio=A..B][,no-flip]`, `padded-crop:N[,flip]`, `shift:N[,flip]`.
impl FromStr for Augmentation {
    type Err = AugmentationError;

    fn from_str(text: &str) -> Result<Self, AugmentationError> {
        let error = || {
            AugmentationError(format!(
                "`{text}` is none of: none, random-resized-crop[:scale=A..B,ratio=A..B,no-flip], \
                 padded-crop:PIXELS[,flip], shift:PIXELS[,flip]"
            ))
        };
        let (kind, options) = text.split_once(':').unwrap_or((text, ""));
        let (mut scale, mut ratio, mut pixels, mut flip) = (None, None, None, None);
        for option in options.split(',').filter(|_| !options.is_empty()) {
            let range = |text: &str| {
                let (low, high) = text.split_once("..")?;
                Some([low.parse::<f64>().ok()?, high.parse::<f64>().ok()?])
            };
            if let Some(values) = option.strip_prefix("scale=") {
                scale = Some(range(values).ok_or_else(error)?);
            } else if let Some(values) = option.strip_prefix("ratio=") {
                ratio = Some(range(values).ok_or_else(error)?);
            } else if option == "flip" || option == "no-flip" {
                flip = Some(option == "flip");
            } else {
                pixels = Some(option.parse::<usize>().map_err(|_| error())?);
            }
        }
        let shaped = scale.is_some() || ratio.is_some();
        let augmentation = match (kind, pixels) {
            ("none", None) if !shaped && flip.is_none() => Self::None,
            ("random-resized-crop", None) => Self::RandomResizedCrop {
                scale: scale.unwrap_or_else(default_scale),
                ratio: ratio.unwrap_or_else(default_ratio),
                flip: flip.unwrap_or(true),
            },
            ("padded-crop", Some(padding)) if !shaped => Self::PaddedCrop {
                padding,
                flip: flip.unwrap_or(false),
            },
            ("shift", Some(pixels)) if !shaped => Self::Shift {
                pixels,
                flip: flip.unwrap_or(false),
            },
            _ => return Err(error()),
        };
        augmentation.check()?;
        Ok(augmentation)
    }
}

#[cfg(test)]
mod tests;
