//! A data set: what was found where, its splits and its classes.

use std::fmt;
use std::path::Path;

use model::{InputShape, Preprocessing, Resize};

use super::source::color_of;
use super::{DataError, NativeSize, Split, embedded, sniff};

/// A data set: images of the same classes to train and to test on.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// What it is kept in.
    pub kind: DataSetKind,
    /// To train on.
    pub train: Split,
    /// To choose options with: images that [`DataSet::split_validation`] held out of the training images.
    pub validation: Option<Split>,
    /// To test on; ImageNet's validation images are these.
    pub test: Split,
    /// Names of the classes, in the order of their labels.
    pub class_names: Vec<String>,
    /// Where it comes from, for a checkpoint's provenance.
    pub source: String,
}

/// What a data set is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSetKind {
    /// The part of Fashion-MNIST that the program carries.
    Embedded,
    /// The IDX files of the MNIST family.
    Idx,
    /// The binary version of CIFAR-10.
    Cifar10,
    /// The binary version of CIFAR-100.
    Cifar100,
    /// A folder a class, as ImageNet.
    ImageFolder,
    /// TinyImageNet's folders.
    TinyImageNet,
    /// Tar files as WebDataset writes them.
    Shards,
}

/// Input size for photographs of any size, as for ImageNet.
const PHOTOGRAPH: InputShape = InputShape {
    channels: 3,
    height: 224,
    width: 224,
};

impl DataSet {
    /// Opens the data set at a path, whose kind is told by the files that are there, or the embedded one. Images in files
    /// and archives are listed, not decoded.
    ///
    /// # Errors
    /// [`DataError`] with the file that is missing or wrong, or with what was looked for.
    pub fn open(path: Option<&Path>) -> Result<Self, DataError> {
        match path {
            Some(path) => sniff::open(path),
            None => embedded::fashion_mnist(),
        }
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// The size of the images, as far as it is known without decoding them all.
    pub fn native(&self) -> NativeSize {
        self.train.native()
    }

    /// The input of a network for these images where nothing else is asked for: their own size, or 224x224 pixels in colour
    /// where each has its own.
    pub fn default_input(&self) -> InputShape {
        match self.native() {
            NativeSize::Uniform(shape) => shape,
            NativeSize::Varied => PHOTOGRAPH,
        }
    }

    /// Holds `count` training images out for validation, drawn by a seed: the paper chooses learning rates with 10,000 of
    /// ImageNet.
    ///
    /// # Errors
    /// [`DataError::HeldOut`] where there aren't enough images.
    pub fn split_validation(&mut self, count: usize, seed: u64) -> Result<(), DataError> {
        let (train, validation) = self.train.hold_out(count, seed)?;
        self.train = train;
        self.validation = Some(validation);
        Ok(())
    }

    /// The preprocessing for networks trained on this set.
    ///
    /// Mean and standard deviation are those of the training images (held-out ones, too) where all are in memory, rounded
    /// to four digits, else ImageNet's. Images of one size are brought to the network's by their shorter side; of images
    /// in files that are larger than the input, the centre is cropped. Photographs of any size are resized to 256 for an
    /// input of 224, in proportion for others.
    pub fn preprocessing(&self, input: InputShape) -> Preprocessing {
        let side = input.height.max(input.width);
        let statistics = self.train.statistics();
        let resize = match self.native() {
            NativeSize::Varied => Preprocessing::imagenet(input).resize,
            NativeSize::Uniform(shape) if statistics.is_none() => Resize::ShortSide {
                size: side.max(shape.height.min(shape.width)),
            },
            // Stretching to the size that they have changes nothing.
            NativeSize::Uniform(shape)
                if (shape.height, shape.width) == (input.height, input.width)
                    && shape.height != shape.width =>
            {
                Resize::Stretch
            }
            NativeSize::Uniform(_) => Resize::ShortSide { size: side },
        };
        let imagenet = Preprocessing::imagenet(input);
        let statistics: Vec<(f32, f32)> = match statistics {
            Some(statistics) => statistics.into_iter().map(rounded).collect(),
            None => imagenet.mean.into_iter().zip(imagenet.std).collect(),
        };
        // A grey image's are those of each of its colours; the luma of colours has about their mean.
        let of_channel = |channel: usize| match statistics.as_slice() {
            [only] => *only,
            all if input.channels == 1 => mean_of(all),
            all => all[channel.min(all.len() - 1)],
        };
        let (mean, std) = (0..input.channels).map(of_channel).unzip();
        Preprocessing {
            color: color_of(input.channels),
            resize,
            mean,
            std,
        }
    }
}

impl fmt::Display for DataSetKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Embedded => "embedded part of Fashion-MNIST",
            Self::Idx => "IDX files",
            Self::Cifar10 => "CIFAR-10, binary version",
            Self::Cifar100 => "CIFAR-100, binary version",
            Self::ImageFolder => "image folder",
            Self::TinyImageNet => "TinyImageNet",
            Self::Shards => "tar shards",
        })
    }
}

/// To four digits. Images of one colour have no variance, and nothing to divide by.
fn rounded((mean, std): (f64, f64)) -> (f32, f32) {
    let round = |value: f64| ((value * 1e4).round() / 1e4) as f32;
    let std = round(std);
    (round(mean), if std > 0.0 { std } else { 1.0 })
}

/// Means of means and of standard deviations.
fn mean_of(statistics: &[(f32, f32)]) -> (f32, f32) {
    let count = statistics.len().max(1) as f32;
    let sum = statistics
        .iter()
        .fold((0.0, 0.0), |(mean, std), other| (mean + other.0, std + other.1));
    (sum.0 / count, sum.1 / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Images, Loader, LoaderOptions, in_order};
    use tch::Device;

    fn set(images: Images) -> DataSet {
        let split = Split::from(images);
        DataSet {
            kind: DataSetKind::Idx,
            train: split.clone(),
            validation: None,
            test: split,
            class_names: vec![],
            source: String::new(),
        }
    }

    fn load(data: &DataSet, input: InputShape) -> tch::Tensor {
        let preprocessing = data.preprocessing(input);
        let options = LoaderOptions::default();
        let loader = Loader::new(&data.train, &preprocessing, input, Device::Cpu, options).unwrap();
        let mut batches = loader.load(0, &in_order(data.train.len(), 16));
        batches.next().unwrap().unwrap().images
    }

    #[test]
    fn values_are_normalised_by_the_training_images() {
        let data = set(Images::new(vec![0, 255, 0, 255], vec![0, 1], (1, 1, 2)).unwrap());
        let input = data.default_input();
        let preprocessing = data.preprocessing(input);
        assert_eq!((preprocessing.mean[0], preprocessing.std[0]), (0.5, 0.5));
        let values = Vec::<f32>::try_from(load(&data, input).reshape([-1])).unwrap();
        assert_eq!(values, [-1.0, 1.0, -1.0, 1.0]);
    }

    #[test]
    fn images_are_brought_to_another_size_and_other_colours() {
        let data = set(Images::new(vec![51, 51, 0, 255], vec![1, 0], (1, 1, 2)).unwrap());
        let input = InputShape {
            channels: 3,
            height: 4,
            width: 4,
        };
        let preprocessing = data.preprocessing(input);
        preprocessing.check(input).unwrap();
        let batch = load(&data, input);
        assert_eq!(batch.size(), [2, 3, 4, 4]);
        let grey = f64::from((0.2 - preprocessing.mean[0]) / preprocessing.std[0]);
        assert!((batch.get(0) - grey).abs().max().double_value(&[]) < 1e-5);
        for channel in 1..3 {
            assert!(batch.select(1, channel).equal(&batch.select(1, 0)));
        }
        assert!(batch.get(1).std(false).double_value(&[]) > 0.1);
    }

    #[test]
    fn held_out_images_leave_the_preprocessing_as_it_is() {
        let mut data = embedded::fashion_mnist().unwrap();
        let input = data.default_input();
        let before = data.preprocessing(input);
        data.split_validation(1_000, 0).unwrap();
        assert_eq!(
            (data.train.len(), data.validation.as_ref().unwrap().len()),
            (9_000, 1_000)
        );
        assert_eq!(data.preprocessing(input), before);
    }
}
