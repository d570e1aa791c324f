//! A split of a data set: the images to train on, to choose options with, or to test on.

use std::sync::Arc;

use model::ColorMode;
use model::image::Pixels;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::source::Source;
use super::{DataError, Images, NativeSize};

/// Images with their classes, in any order, whatever they are kept in. Clones share them.
#[derive(Clone, Debug)]
pub struct Split {
    source: Arc<dyn Source>,
    /// Which of the source's images these are; all where there is none.
    subset: Option<Arc<[usize]>>,
    /// Of every class of the source, the one that it is here; the same where there is none.
    classes: Option<Arc<[usize]>>,
}

impl From<Images> for Split {
    fn from(images: Images) -> Self {
        Self::of(images)
    }
}

impl Split {
    /// All images of a source.
    pub(super) fn of(source: impl Source + 'static) -> Self {
        Self {
            source: Arc::new(source),
            subset: None,
            classes: None,
        }
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.subset
            .as_ref()
            .map_or_else(|| self.source.len(), |subset| subset.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An image's class, as an index into the data set's class names.
    pub fn label(&self, index: usize) -> usize {
        let label = self.source.label(self.place(index));
        let classes = self.classes.as_ref();
        classes.map_or(label, |classes| classes.get(label).copied().unwrap_or(label))
    }

    /// The same images with other labels: of every class, which it becomes.
    #[must_use]
    pub fn relabelled(&self, classes: &[usize]) -> Self {
        let found = |class: usize| match &self.classes {
            None => classes.get(class).copied().unwrap_or(class),
            Some(before) => before
                .get(class)
                .map_or(class, |&class| classes.get(class).copied().unwrap_or(class)),
        };
        let count = self.classes.as_ref().map_or(classes.len(), |before| before.len());
        Self {
            classes: Some((0..count).map(found).collect()),
            ..self.clone()
        }
    }

    /// The file of an image, or its place in an archive.
    pub fn name(&self, index: usize) -> String {
        self.source.name(self.place(index))
    }

    /// An image's pixels in its own size, decoded now.
    ///
    /// # Errors
    /// [`DataError`] where the image can't be read or decoded, with its name.
    pub fn image(&self, index: usize, color: ColorMode) -> Result<Pixels, DataError> {
        self.source.image(self.place(index), color)
    }

    /// An image as it is kept; `None` where that is pixels.
    pub(super) fn encoded(&self, index: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.source.encoded(self.place(index))
    }

    /// The size of the images, as far as it is known without decoding them all.
    pub fn native(&self) -> NativeSize {
        self.source.native()
    }

    /// Mean and standard deviation of the values 0..1 of every channel of all images of the source, where they are in
    /// memory.
    pub(super) fn statistics(&self) -> Option<Vec<(f64, f64)>> {
        self.source.statistics()
    }

    /// Takes `count` images out, drawn by a seed: the rest, and the images that were taken. Both keep their order.
    ///
    /// # Errors
    /// [`DataError::HeldOut`] where fewer than two images would be left.
    pub fn hold_out(&self, count: usize, seed: u64) -> Result<(Self, Self), DataError> {
        let images = self.len();
        if count == 0 || count + 2 > images {
            let wanted = count;
            return Err(DataError::HeldOut { wanted, images });
        }
        let mut order: Vec<usize> = (0..images).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut taken = vec![false; images];
        for &index in &order[..count] {
            taken[index] = true;
        }
        let part = |wanted: bool| {
            let indices = (0..images).filter(|&index| taken[index] == wanted);
            Self {
                source: Arc::clone(&self.source),
                subset: Some(indices.map(|index| self.place(index)).collect()),
                classes: self.classes.clone(),
            }
        };
        Ok((part(false), part(true)))
    }

    /// An image's index in the source.
    fn place(&self, index: usize) -> usize {
        self.subset
            .as_ref()
            .map_or(index, |subset| subset.get(index).copied().unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(count: usize) -> Split {
        let pixels = (0..count).map(|index| index as u8).collect();
        let labels = (0..count).map(|index| (index % 7) as u8).collect();
        Images::new(pixels, labels, (1, 1, 1)).unwrap().into()
    }

    fn pixels(split: &Split) -> Vec<u8> {
        (0..split.len())
            .map(|index| split.image(index, ColorMode::Grayscale).unwrap().data[0])
            .collect()
    }

    proptest! {
        #[test]
        fn held_out_images_are_no_longer_trained_on(count in 1_usize..98, seed in any::<u64>()) {
            let all = numbered(100);
            let (rest, held) = all.hold_out(count, seed).unwrap();
            prop_assert_eq!(held.len(), count);
            let mut together = [pixels(&rest), pixels(&held)].concat();
            prop_assert!(pixels(&held).is_sorted());
            together.sort_unstable();
            prop_assert_eq!(together, pixels(&all));
            let (_, again) = all.hold_out(count, seed).unwrap();
            prop_assert_eq!(pixels(&again), pixels(&held));
            for index in 0..held.len() {
                prop_assert_eq!(held.label(index), usize::from(pixels(&held)[index] % 7));
            }
        }
    }

    #[test]
    fn labels_become_others_in_every_part() {
        let all = numbered(14).relabelled(&[6, 5, 4, 3, 2, 1, 0]);
        let (rest, held) = all.hold_out(5, 1).unwrap();
        for split in [&all, &rest, &held] {
            for (index, pixel) in pixels(split).into_iter().enumerate() {
                assert_eq!(split.label(index), usize::from(6 - pixel % 7));
            }
        }
        let back = all.relabelled(&[6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(
            (0..7).map(|index| back.label(index)).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6]
        );
    }

    #[test]
    fn two_images_are_left_at_least() {
        let all = numbered(10);
        assert!(all.hold_out(8, 1).is_ok());
        let error = all.hold_out(9, 1).unwrap_err().to_string();
        assert!(error.contains("9 images can't be held out of 10"), "{error}");
        assert!(all.hold_out(0, 1).is_err());
        let (rest, _) = all.hold_out(4, 1).unwrap();
        let (rest, held) = rest.hold_out(3, 2).unwrap();
        assert_eq!((rest.len(), held.len()), (3, 3));
    }
}
