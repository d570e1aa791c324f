//! Image data sets: where images and labels come from, and in which order training sees them.

mod embedded;
mod idx;

pub use embedded::fashion_mnist;
pub use idx::read_folder;

use std::path::{Path, PathBuf};

use model::preprocessing::PreprocessingError;
use model::{ColorMode, InputShape, Preprocessing, Resize};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, TchError, Tensor};
use thiserror::Error;

/// Images with their classes, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    shape: InputShape,
}

/// A data set: training and test images of the same classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// To train on.
    pub train: Images,
    /// To test on.
    pub test: Images,
    /// Names of the classes, in the order of their labels.
    pub class_names: Vec<String>,
    /// Where it comes from, for a checkpoint's provenance.
    pub source: String,
}

/// Why a data set can't be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without the files that are expected.
    #[error(
        "{} holds no data set in IDX format: neither {stem} nor {stem}.gz is there (expected are \
         train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte)",
        folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        stem: &'static str,
    },
    /// A file that isn't what its name says.
    #[error("{name} is not a valid IDX file: {reason}")]
    Idx {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Files that don't belong together.
    #[error("{0}")]
    Inconsistent(String),
    /// The preprocessing doesn't fit the images.
    #[error(transparent)]
    Preprocessing(#[from] PreprocessingError),
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
}

/// The data set of a folder, or the embedded one.
///
/// # Errors
/// [`DataError`] with the file that is missing or wrong.
pub fn load(folder: Option<&Path>) -> Result<Dataset, DataError> {
    match folder {
        Some(folder) => read_folder(folder),
        None => fashion_mnist(),
    }
}

/// The batches of one epoch as indices of images: every image once, in an order that seed and epoch decide. A last batch
/// of one image is left out, as BatchNorm can't train on it.
pub fn epoch_batches(images: usize, batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..images).collect();
    order.shuffle(&mut generator);
    let batches = order.chunks(batch_size.max(1)).map(<[usize]>::to_vec);
    batches
        .filter(|batch| batch.len() > 1 || batch_size == 1)
        .collect()
}

impl Images {
    /// `pixels` is `[N, H, W, C]`, `labels` `[N]`, `shape` (C, H, W).
    ///
    /// # Errors
    /// [`DataError::Inconsistent`] where their lengths contradict each other.
    pub fn new(
        pixels: Vec<u8>,
        labels: Vec<u8>,
        (channels, height, width): (usize, usize, usize),
    ) -> Result<Self, DataError> {
        let expected = labels.len().checked_mul(channels * height * width);
        if labels.is_empty() || expected != Some(pixels.len()) {
            let message = format!(
                "{} bytes of pixels don't make {} images of {height}x{width}x{channels}",
                pixels.len(),
                labels.len()
            );
            return Err(DataError::Inconsistent(message));
        }
        Ok(Self {
            pixels,
            labels,
            shape: InputShape {
                channels,
                height,
                width,
            },
        })
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
        let length = self.image_length();
        self.pixels
            .get(index * length..(index + 1) * length)
            .unwrap_or_default()
    }

    /// Some images as the network's input `[N, C, H, W]`, with their classes `[N]`.
    ///
    /// # Errors
    /// [`DataError::Preprocessing`] where the preprocessing doesn't fit, [`DataError::Torch`] where libtorch refuses.
    pub fn batch(
        &self,
        indices: &[usize],
        preprocessing: &Preprocessing,
        device: Device,
    ) -> Result<(Tensor, Tensor), DataError> {
        let length = self.image_length();
        let mut values = vec![0.0_f32; indices.len() * length];
        for (&index, output) in indices.iter().zip(values.chunks_exact_mut(length)) {
            preprocessing.normalise(self.pixels(index), self.shape, output)?;
        }
        let labels: Vec<i64> = indices
            .iter()
            .map(|&index| i64::from(self.labels[index]))
            .collect();
        let InputShape {
            channels,
            height,
            width,
        } = self.shape;
        let shape = [indices.len(), channels, height, width].map(|length| length as i64);
        let images = Tensor::f_from_slice(&values)?.f_view(shape)?.f_to(device)?;
        let labels = Tensor::f_from_slice(&labels)?
            .f_to_kind(Kind::Int64)?
            .f_to(device)?;
        Ok((images, labels))
    }

    fn image_length(&self) -> usize {
        self.shape.channels * self.shape.height * self.shape.width
    }
}

impl Dataset {
    /// The preprocessing for networks trained on this set: mean and standard deviation are those of its training
    /// images, rounded to four digits; images of another size are brought to this one by their shorter side.
    pub fn preprocessing(&self) -> Preprocessing {
        let InputShape {
            channels,
            height,
            width,
        } = self.train.shape;
        let mut sums = vec![(0_u64, 0_u64); channels];
        for pixel in self.train.pixels.chunks_exact(channels) {
            for ((sum, squares), &value) in sums.iter_mut().zip(pixel) {
                *sum += u64::from(value);
                *squares += u64::from(value) * u64::from(value);
            }
        }
        let count = (self.train.pixels.len() / channels) as f64;
        let round = |value: f64| ((value * 1e4).round() / 1e4) as f32;
        let statistics = |&(sum, squares): &(u64, u64)| {
            let mean = sum as f64 / count / 255.0;
            let variance = squares as f64 / count / (255.0 * 255.0) - mean * mean;
            // Images of one colour have no variance, and nothing to divide by.
            let std = round(variance.max(0.0).sqrt());
            (round(mean), if std > 0.0 { std } else { 1.0 })
        };
        let (mean, std) = sums.iter().map(statistics).unzip();
        Preprocessing {
            color: if channels == 1 {
                ColorMode::Grayscale
            } else {
                ColorMode::Rgb
            },
            resize: Resize::ShortSide {
                size: height.max(width),
            },
            mean,
            std,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_image_once_in_an_order_of_its_own() {
        let first = epoch_batches(103, 10, 7, 0);
        let mut seen: Vec<usize> = first.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..103).collect::<Vec<_>>());
        assert_eq!(first, epoch_batches(103, 10, 7, 0));
        assert_ne!(first, epoch_batches(103, 10, 7, 1));
        assert_ne!(first, epoch_batches(103, 10, 8, 0));
    }

    #[test]
    fn a_last_batch_of_one_image_is_left_out() {
        assert_eq!(
            epoch_batches(11, 5, 0, 0)
                .iter()
                .map(Vec::len)
                .collect::<Vec<_>>(),
            [5, 5]
        );
        assert_eq!(epoch_batches(2, 1, 0, 0).len(), 2);
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_training_images() {
        let images = Images::new(vec![0, 255, 0, 255], vec![0, 1], (1, 1, 2)).unwrap();
        let data = Dataset {
            train: images.clone(),
            test: images,
            class_names: vec![],
            source: String::new(),
        };
        let preprocessing = data.preprocessing();
        assert_eq!((preprocessing.mean[0], preprocessing.std[0]), (0.5, 0.5));
        let (batch, labels) = data.train.batch(&[1, 0], &preprocessing, Device::Cpu).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(batch.reshape([-1])).unwrap(),
            [-1.0, 1.0, -1.0, 1.0]
        );
        assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [1, 0]);
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        assert!(Images::new(vec![0; 7], vec![0, 1], (1, 2, 2)).is_err());
        assert!(Images::new(vec![], vec![], (1, 2, 2)).is_err());
    }
}
