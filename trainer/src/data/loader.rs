//! Decodes, varies and normalises images ahead of the step that needs them, on threads of its own.
//!
//! What a batch holds depends on seed, epoch and indices alone: every image has random numbers of its own, and batches
//! come in their order. Of batches that nobody has taken yet, only [`AHEAD`] are worked on, so that memory is bounded.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use model::{InputShape, Preprocessing};
use tch::{Device, Kind, Tensor};

use super::augmentation::Draw;
use super::buffers::Buffers;
use super::pipeline::Pipeline;
use super::{Augmentation, DataError, Split};
use crate::engine::Joiner;

/// Batches that are worked on beyond the one that is being used.
pub(crate) const AHEAD: usize = 2;

/// Images that a worker takes at a time: enough that small images cost little to hand over.
const PART: usize = 16;

/// How images are loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// What is done to every image.
    pub augmentation: Augmentation,
    /// Decides the augmentation, with epoch and index.
    pub seed: u64,
    /// Threads; at least 1. They don't change the result.
    pub workers: usize,
    /// Images that can't be decoded are left out, with a warning, instead of ending the run.
    pub skip_corrupt: bool,
}

/// Some images as a network's input.
#[derive(Debug)]
pub struct Batch {
    /// `[N, C, H, W]` float32, on the loader's device.
    pub images: Tensor,
    /// `[N]` int64, on the loader's device.
    pub labels: Tensor,
    /// Of the images, in their split.
    pub indices: Vec<usize>,
    /// Images that were left out as they are corrupt.
    pub skipped: usize,
}

/// Loads the images of a split.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    device: Device,
    workers: usize,
}

#[derive(Debug)]
struct Shared {
    split: Split,
    preprocessing: Preprocessing,
    input: InputShape,
    options: LoaderOptions,
    /// Names of images that were left out.
    corrupt: Mutex<BTreeSet<String>>,
}

/// A part of a batch, on its way from a worker.
struct Part {
    /// One image after the other, `[C, H, W]` each.
    values: Vec<f32>,
    labels: Vec<i64>,
    indices: Vec<usize>,
    skipped: usize,
}

/// The batches of an epoch, in their order.
pub struct Batches {
    pipeline: Pipeline<Vec<usize>, Result<Part, DataError>>,
    /// Those of parts that became a batch.
    buffers: Arc<Buffers>,
    joiner: Joiner,
    input: InputShape,
    device: Device,
    /// Parts of the batches that are still to come.
    parts: std::vec::IntoIter<usize>,
}

impl Default for LoaderOptions {
    /// No augmentation, a worker a core (16 at most), corrupt images are errors.
    fn default() -> Self {
        Self {
            augmentation: Augmentation::None,
            seed: 0,
            workers: default_workers(),
            skip_corrupt: false,
        }
    }
}

/// A worker a core, 16 at most.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(16))
}

impl Loader {
    /// Images of `split` will become inputs of a network with shape `input`.
    ///
    /// # Errors
    /// [`DataError`] where preprocessing or augmentation don't fit.
    pub fn new(
        split: &Split,
        preprocessing: &Preprocessing,
        input: InputShape,
        device: Device,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        preprocessing.check(input)?;
        options.augmentation.check()?;
        let shared = Shared {
            split: split.clone(),
            preprocessing: preprocessing.clone(),
            input,
            options,
            corrupt: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            device,
            workers: options.workers.max(1),
        })
    }

    /// How many images the split has.
    pub fn len(&self) -> usize {
        self.shared.split.len()
    }

    /// Whether the split has none.
    pub fn is_empty(&self) -> bool {
        self.shared.split.is_empty()
    }

    /// Begins to load batches of images, given by their indices in the split, with the augmentation of an epoch.
    pub fn load(&self, epoch: usize, batches: &[Vec<usize>]) -> Batches {
        let size = batches.iter().map(Vec::len).max().unwrap_or(0);
        // A batch occupies all workers.
        let part = size.div_ceil(self.workers).clamp(1, PART);
        let parts: Vec<usize> = batches.iter().map(|batch| batch.len().div_ceil(part)).collect();
        let jobs = batches
            .iter()
            .enumerate()
            .flat_map(|(number, batch)| batch.chunks(part).map(move |part| (number, part.to_vec())))
            .collect();
        let shared = Arc::clone(&self.shared);
        let buffers = Arc::new(Buffers::default());
        let of_parts = Arc::clone(&buffers);
        let pipeline = Pipeline::start(self.workers, AHEAD, jobs, move |indices: Vec<usize>| {
            shared.part(epoch, &indices, &of_parts)
        });
        Batches {
            pipeline,
            buffers,
            joiner: Joiner::default(),
            input: self.shared.input,
            device: self.device,
            parts: parts.into_iter(),
        }
    }

    /// Loads some images, given by their indices in the split.
    ///
    /// # Errors
    /// [`DataError`] with the image that can't be used.
    pub fn batch(&self, indices: &[usize]) -> Result<Batch, DataError> {
        self.load(0, &[indices.to_vec()])
            .next()
            .ok_or(DataError::Worker)?
    }

    /// How many images of the split have been left out so far, as they are corrupt.
    pub fn corrupt(&self) -> usize {
        self.shared.corrupt.lock().map_or(0, |corrupt| corrupt.len())
    }

    /// Says in the end how many images were left out, if any were; `images` says which they are, such as "test".
    pub fn tell_corrupt(&self, images: &str) {
        let (corrupt, all) = (self.corrupt(), self.len());
        if corrupt > 0 {
            tracing::warn!("{corrupt} of {all} {images} images were left out, as they are corrupt");
        }
    }
}

impl Shared {
    fn part(&self, epoch: usize, indices: &[usize], buffers: &Buffers) -> Result<Part, DataError> {
        let InputShape {
            channels,
            height,
            width,
        } = self.input;
        let length = channels * height * width;
        let mut values = buffers.take(indices.len() * length);
        let (mut labels, mut kept) = (Vec::new(), Vec::new());
        for &index in indices {
            let output = &mut values[kept.len() * length..][..length];
            match self.image(epoch, index, output) {
                Ok(()) => {
                    labels.push(self.split.label(index) as i64);
                    kept.push(index);
                }
                Err(DataError::Image { name, source }) if self.options.skip_corrupt => {
                    self.skip(name, &source);
                }
                Err(error) => return Err(error),
            }
        }
        values.truncate(kept.len() * length);
        Ok(Part {
            values,
            skipped: indices.len() - kept.len(),
            labels,
            indices: kept,
        })
    }

    fn image(&self, epoch: usize, index: usize, output: &mut [f32]) -> Result<(), DataError> {
        let image = self.split.image(index, self.preprocessing.color)?;
        let draw = Draw {
            seed: self.options.seed,
            epoch,
            index,
        };
        let pixels = self
            .options
            .augmentation
            .apply(image, &self.preprocessing, self.input, draw)
            .map_err(|source| DataError::Image {
                name: self.split.name(index),
                source,
            })?;
        Ok(self.preprocessing.normalise(&pixels, self.input, output)?)
    }

    /// Says once that an image is left out.
    fn skip(&self, name: String, error: &model::image::ImageError) {
        let Ok(mut corrupt) = self.corrupt.lock() else {
            return;
        };
        if !corrupt.contains(&name) {
            tracing::warn!("the image {name} is left out: {error}");
            corrupt.insert(name);
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let parts = self.parts.next()?;
        let batch = self.batch(parts);
        if batch.is_err() {
            self.parts = Vec::new().into_iter();
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.parts.size_hint()
    }
}

impl ExactSizeIterator for Batches {}

impl Batches {
    fn batch(&mut self, parts: usize) -> Result<Batch, DataError> {
        let (mut values, mut labels, mut indices, mut skipped) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..parts {
            let part = self.pipeline.next().ok_or(DataError::Worker)??;
            values.push(part.values);
            labels.extend(part.labels);
            indices.extend(part.indices);
            skipped += part.skipped;
        }
        let InputShape {
            channels,
            height,
            width,
        } = self.input;
        let shape = [indices.len(), channels, height, width].map(|length| length as i64);
        let images = self.joiner.join(&values, &shape)?.f_to(self.device)?;
        values.into_iter().for_each(|part| self.buffers.give_back(part));
        Ok(Batch {
            images,
            labels: Tensor::f_from_slice(&labels)?
                .f_to_kind(Kind::Int64)?
                .f_to(self.device)?,
            indices,
            skipped,
        })
    }
}

#[cfg(test)]
mod tests;
