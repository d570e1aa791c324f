//! `[data]` of a run: the images, and what is done to them.

use std::path::PathBuf;

use model::InputShape;
use serde::{Deserialize, Serialize};

use crate::data::{Augmentation, DataError, DataSet, default_workers};

/// The images, and what is done to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSettings {
    /// The data set; `None`: the part of Fashion-MNIST that the program carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Height and width of the network's input in pixels; `None`: those of the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<[usize; 2]>,
    /// 3 for colour, 1 for grey; `None`: those of the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// How training images are varied.
    pub augmentation: Augmentation,
    /// Training images that are held out, and evaluated with instead of the test images.
    pub hold_out: usize,
    /// Decides which.
    pub hold_out_seed: u64,
    /// Threads that decode and vary images, which don't change the result; `None`: one for every core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Leave images out that can't be decoded, instead of ending there.
    pub skip_corrupt: bool,
}

impl DataSettings {
    /// The network's input, for images of a shape.
    pub fn input(&self, images: InputShape) -> InputShape {
        let [height, width] = self.input_size.unwrap_or([images.height, images.width]);
        InputShape {
            channels: self.channels.unwrap_or(images.channels),
            height,
            width,
        }
    }

    /// Opens the data set and holds images out. Those are what runs are evaluated with then, in the place of the test
    /// images.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(&self) -> Result<DataSet, DataError> {
        self.hold_out(DataSet::open(self.path.as_deref())?)
    }

    /// Holds images out of the training images of a whole data set.
    ///
    /// # Errors
    /// [`DataError::HeldOut`] where there aren't enough images.
    pub fn hold_out(&self, mut data: DataSet) -> Result<DataSet, DataError> {
        if self.hold_out > 0 {
            data.split_validation(self.hold_out, self.hold_out_seed)?;
        }
        if let Some(validation) = &data.validation {
            data.test = validation.clone();
        }
        Ok(data)
    }

    /// Threads that decode and vary images.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(default_workers)
    }

    pub(super) fn contradictions(&self, found: &mut Vec<String>) {
        if self.input_size.is_some_and(|size| size.contains(&0)) {
            found.push("`data.input_size` must be numbers of pixels, [height, width]".into());
        }
        if self
            .channels
            .is_some_and(|channels| channels != 1 && channels != 3)
        {
            found.push("`data.channels` must be 1 or 3".into());
        }
        if self.workers == Some(0) {
            found.push("`data.workers` must be at least 1".into());
        }
        if let Err(error) = self.augmentation.check() {
            found.push(format!("`data.augmentation`: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_evaluated_with_what_is_held_out() {
        let settings = DataSettings {
            hold_out: 1_000,
            ..DataSettings::default()
        };
        let whole = DataSettings::default().open().unwrap();
        assert_eq!((whole.train.len(), whole.test.len()), (10_000, 2_000));
        let data = settings.open().unwrap();
        assert_eq!((data.train.len(), data.test.len()), (9_000, 1_000));
        // The same images whoever holds them out, others by another seed.
        let names = |settings: &DataSettings| {
            let data = settings.hold_out(whole.clone()).unwrap();
            (0..20).map(|index| data.test.name(index)).collect::<Vec<_>>()
        };
        assert_eq!(
            names(&settings),
            (0..20).map(|index| data.test.name(index)).collect::<Vec<_>>()
        );
        let other = DataSettings {
            hold_out_seed: 1,
            ..settings.clone()
        };
        assert_ne!(names(&settings), names(&other));
        let too_many = DataSettings {
            hold_out: 10_000,
            ..settings
        };
        assert!(too_many.open().is_err());
    }
}
