//! What a data set holds, image by image: counts, sizes, formats, and what can't be read. Every image is decoded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::ColorMode;
use model::image::{Limits, format_name};
use serde::Serialize;

use super::decoding::decode;
use super::source::color_of;
use super::{DataError, DataSet, NativeSize, Split};

/// Images that a thread takes at a time.
const CHUNK: usize = 16;

/// What a data set holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// What it is kept in, in words.
    pub kind: String,
    /// Its path.
    pub source: String,
    /// Names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// `train` and `test`.
    pub splits: Vec<SplitInspection>,
}

/// What a split holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitInspection {
    /// `train` or `test`.
    pub name: &'static str,
    /// How many images are listed, readable or not.
    pub images: usize,
    /// Images of the smallest class.
    pub fewest_per_class: usize,
    /// Images of the largest class.
    pub most_per_class: usize,
    /// Encoded bytes; of pixels in memory, their own.
    pub bytes: u64,
    /// How many images are in which format.
    pub formats: BTreeMap<&'static str, usize>,
    /// The sizes of the images that can be read; `None` where there are none.
    pub sizes: Option<Sizes>,
    /// Images that can't be used, in their order.
    pub unreadable: Vec<Unreadable>,
}

/// Sizes of images, by their area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// How many different sizes there are.
    pub distinct: usize,
    /// Width and height of the smallest.
    pub smallest: (u32, u32),
    /// Half of the images are smaller, half are larger.
    pub median: (u32, u32),
    /// Width and height of the largest.
    pub largest: (u32, u32),
}

/// An image that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its file, or its place in an archive.
    pub image: String,
    /// What is wrong with it.
    pub reason: String,
    /// Its contents are wrong, so that it may be left out. Otherwise the file can't be read, which ends training always.
    pub corrupt: bool,
}

/// What one thread has seen.
#[derive(Default)]
struct Seen {
    bytes: u64,
    formats: BTreeMap<&'static str, usize>,
    sizes: BTreeMap<(u64, u32, u32), usize>,
    unreadable: Vec<(usize, Unreadable)>,
}

impl DataSet {
    /// Decodes every image on so many threads, and calls `progress` with the number of images after every few.
    pub fn inspect(&self, workers: usize, progress: impl Fn(usize) + Sync) -> Inspection {
        let splits = [("train", &self.train), ("test", &self.test)];
        let inspect = |(name, split)| inspect(name, split, self.classes(), workers, &progress);
        Inspection {
            kind: self.kind.to_string(),
            source: self.source.clone(),
            classes: self.class_names.clone(),
            splits: splits.into_iter().map(inspect).collect(),
        }
    }
}

impl Inspection {
    /// How many images can't be used.
    pub fn unreadable(&self) -> usize {
        self.splits.iter().map(|split| split.unreadable.len()).sum()
    }

    /// How many of them can't be left out: not what is in them is wrong, but they can't be read.
    pub fn unreachable(&self) -> usize {
        let unreadable = self.splits.iter().flat_map(|split| &split.unreadable);
        unreadable.filter(|image| !image.corrupt).count()
    }
}

fn inspect(
    name: &'static str,
    split: &Split,
    classes: usize,
    workers: usize,
    progress: &(impl Fn(usize) + Sync),
) -> SplitInspection {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut seen = Seen::default();
        loop {
            let start = next.fetch_add(CHUNK, Ordering::Relaxed);
            let end = split.len().min(start.saturating_add(CHUNK));
            if start >= end {
                return seen;
            }
            (start..end).for_each(|index| seen.look_at(split, index));
            progress(end - start);
        }
    };
    let mut all = Seen::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(seen) => all.add(seen),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    all.unreadable.sort_unstable_by_key(|&(index, _)| index);
    let mut per_class = vec![0_usize; classes];
    for index in 0..split.len() {
        if let Some(count) = per_class.get_mut(split.label(index)) {
            *count += 1;
        }
    }
    SplitInspection {
        name,
        images: split.len(),
        fewest_per_class: per_class.iter().copied().min().unwrap_or(0),
        most_per_class: per_class.iter().copied().max().unwrap_or(0),
        bytes: all.bytes,
        sizes: all.sizes(),
        formats: all.formats,
        unreadable: all
            .unreadable
            .into_iter()
            .map(|(_, unreadable)| unreadable)
            .collect(),
    }
}

impl Seen {
    fn look_at(&mut self, split: &Split, index: usize) {
        match look_at(split, index) {
            Ok((format, bytes, (width, height))) => {
                self.bytes += bytes;
                *self.formats.entry(format).or_default() += 1;
                let area = u64::from(width) * u64::from(height);
                *self.sizes.entry((area, width, height)).or_default() += 1;
            }
            Err(error) => {
                let unreadable = Unreadable {
                    image: split.name(index),
                    reason: reason(&error),
                    corrupt: matches!(error, DataError::Image { .. }),
                };
                self.unreadable.push((index, unreadable));
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        for (format, count) in other.formats {
            *self.formats.entry(format).or_default() += count;
        }
        for (size, count) in other.sizes {
            *self.sizes.entry(size).or_default() += count;
        }
        self.unreadable.extend(other.unreadable);
    }

    fn sizes(&self) -> Option<Sizes> {
        let size = |&(_, width, height): &(u64, u32, u32)| (width, height);
        let images: usize = self.sizes.values().sum();
        let mut passed = 0;
        let median = self.sizes.iter().find(|&(_, &count)| {
            passed += count;
            2 * passed >= images
        });
        Some(Sizes {
            distinct: self.sizes.len(),
            smallest: size(self.sizes.first_key_value()?.0),
            median: size(median?.0),
            largest: size(self.sizes.last_key_value()?.0),
        })
    }
}

/// Format, bytes and size of an image that can be decoded.
fn look_at(split: &Split, index: usize) -> Result<(&'static str, u64, (u32, u32)), DataError> {
    let Some(bytes) = split.encoded(index)? else {
        let color = match split.native() {
            NativeSize::Uniform(shape) => color_of(shape.channels),
            NativeSize::Varied => ColorMode::Rgb,
        };
        let image = split.image(index, color)?;
        return Ok(("pixels", image.data.len() as u64, (image.width, image.height)));
    };
    let image = decode(&bytes, ColorMode::Rgb, Limits::default()).map_err(|source| DataError::Image {
        name: split.name(index),
        source,
    })?;
    let format = format_name(&bytes).unwrap_or("other");
    Ok((format, bytes.len() as u64, (image.width, image.height)))
}

/// What is wrong, without the name of the image, which is told beside it.
fn reason(error: &DataError) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Some say the words of their cause, too.
        if !words.last().is_some_and(|last| last.ends_with(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    if words.is_empty() {
        words.push(error.to_string());
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;

    #[test]
    fn images_in_memory_are_counted() {
        let data = DataSet::open(None).unwrap();
        let counted = AtomicUsize::new(0);
        let found = data.inspect(3, |images| {
            counted.fetch_add(images, Ordering::Relaxed);
        });
        assert_eq!(counted.into_inner(), 12_000);
        let train = &found.splits[0];
        assert_eq!(
            (train.images, train.fewest_per_class, train.most_per_class),
            (10_000, 1_000, 1_000)
        );
        assert_eq!(train.formats["pixels"], 10_000);
        assert_eq!(train.sizes.unwrap().largest, (28, 28));
        assert_eq!(found.unreadable(), 0);
    }

    #[test]
    fn the_median_is_that_of_the_images() {
        let mut seen = Seen::default();
        for (side, count) in [(1_u32, 2), (2, 1), (3, 4)] {
            seen.sizes.insert((u64::from(side * side), side, side), count);
        }
        let sizes = seen.sizes().unwrap();
        assert_eq!(
            (sizes.smallest, sizes.median, sizes.largest),
            ((1, 1), (3, 3), (3, 3))
        );
        assert_eq!(Seen::default().sizes(), None);
    }

    #[test]
    fn classes_without_images_count() {
        let split = Split::from(Images::new(vec![0; 3], vec![0, 2, 2], (1, 1, 1)).unwrap());
        let found = inspect("test", &split, 3, 1, &|_| {});
        assert_eq!((found.fewest_per_class, found.most_per_class), (0, 2));
    }
}
