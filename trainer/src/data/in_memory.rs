//! Images of one size in memory: the MNIST family and CIFAR.

use model::InputShape;
use model::image::Pixels;

use super::source::{Source, color_of};
use super::{DataError, NativeSize};

/// Images with their classes, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    shape: InputShape,
    /// What they are called in messages.
    name: String,
}

impl Images {
    /// `pixels` is `[N, H, W, C]`, `labels` `[N]`, `shape` (C, H, W).
    ///
    /// # Errors
    /// [`DataError::Inconsistent`] where their lengths contradict each other, or there are no pixels.
    pub fn new(
        pixels: Vec<u8>,
        labels: Vec<u8>,
        (channels, height, width): (usize, usize, usize),
    ) -> Result<Self, DataError> {
        let lengths = [labels.len(), channels, height, width];
        let expected = lengths.into_iter().try_fold(1_usize, usize::checked_mul);
        // Images without pixels are none, either.
        if pixels.is_empty() || expected != Some(pixels.len()) {
            let message = format!(
                "{} bytes of pixels don't make {} images of {height}x{width}x{channels}",
                pixels.len(),
                labels.len()
            );
            return Err(DataError::Inconsistent(message));
        }
        let shape = InputShape {
            channels,
            height,
            width,
        };
        Ok(Self {
            pixels,
            labels,
            shape,
            name: String::new(),
        })
    }

    /// The same images, called so in messages.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let name = name.to_owned();
        Self { name, ..self }
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none; never for images made by [`Images::new`].
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Shape of one image.
    pub fn shape(&self) -> InputShape {
        self.shape
    }

    /// The classes.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// One image's pixels, `[H, W, C]`; empty past the last image.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let InputShape {
            channels,
            height,
            width,
        } = self.shape;
        let length = channels * height * width;
        self.pixels
            .get(index * length..(index + 1) * length)
            .unwrap_or_default()
    }

    /// Mean and standard deviation of the values 0..1 of every channel.
    pub(super) fn statistics(&self) -> Vec<(f64, f64)> {
        let channels = self.shape.channels;
        let mut sums = vec![(0_u64, 0_u64); channels];
        for pixel in self.pixels.chunks_exact(channels) {
            for ((sum, squares), &value) in sums.iter_mut().zip(pixel) {
                *sum += u64::from(value);
                *squares += u64::from(value) * u64::from(value);
            }
        }
        let count = (self.pixels.len() / channels) as f64;
        let statistics = |(sum, squares): (u64, u64)| {
            let mean = sum as f64 / count / 255.0;
            let variance = squares as f64 / count / (255.0 * 255.0) - mean * mean;
            (mean, variance.max(0.0).sqrt())
        };
        sums.into_iter().map(statistics).collect()
    }
}

impl Source for Images {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> usize {
        self.labels.get(index).copied().map_or(0, usize::from)
    }

    fn name(&self, index: usize) -> String {
        format!("{index} of {}", self.name)
    }

    fn image(&self, index: usize, color: model::ColorMode) -> Result<Pixels, DataError> {
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let image = Pixels {
            width: length(self.shape.width),
            height: length(self.shape.height),
            color: color_of(self.shape.channels),
            data: self.pixels(index).to_vec(),
        };
        Ok(image.in_color(color))
    }

    fn encoded(&self, _: usize) -> Result<Option<Vec<u8>>, DataError> {
        Ok(None)
    }

    fn native(&self) -> NativeSize {
        NativeSize::Uniform(self.shape)
    }

    fn statistics(&self) -> Option<Vec<(f64, f64)>> {
        Some(Images::statistics(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        assert!(Images::new(vec![0; 7], vec![0, 1], (1, 2, 2)).is_err());
        assert!(Images::new(vec![], vec![], (1, 2, 2)).is_err());
        assert!(Images::new(vec![], vec![0, 1], (1, 0, 0)).is_err());
        assert!(Images::new(vec![], vec![0, 1], (0, 2, 2)).is_err());
    }

    #[test]
    fn mean_and_deviation_are_of_all_pixels() {
        let images = Images::new(vec![0, 255, 0, 255], vec![0, 1], (1, 1, 2)).unwrap();
        assert_eq!(images.statistics(), [(0.5, 0.5)]);
    }
}
