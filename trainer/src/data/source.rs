//! Where the images of a split come from: memory, files, archives.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use model::image::{ImageError, Limits, Pixels};
use model::{ColorMode, InputShape};

use super::DataError;
use super::decoding::dimensions;

/// Images whose headers are read to learn whether all have one size.
const PROBES: usize = 32;

/// Images that can be had in any order, by any thread.
pub(super) trait Source: Send + Sync + fmt::Debug {
    /// How many images there are.
    fn len(&self) -> usize;

    /// An image's class.
    fn label(&self, index: usize) -> usize;

    /// An image's file or place, for messages.
    fn name(&self, index: usize) -> String;

    /// An image's pixels in its own size.
    fn image(&self, index: usize, color: ColorMode) -> Result<Pixels, DataError>;

    /// An image as it is kept; `None` where that is pixels.
    fn encoded(&self, index: usize) -> Result<Option<Vec<u8>>, DataError>;

    /// The size of the images, as far as it is known without decoding them all.
    fn native(&self) -> NativeSize;

    /// Mean and standard deviation of the values 0..1 of every channel, where all images are in memory.
    fn statistics(&self) -> Option<Vec<(f64, f64)>> {
        None
    }
}

/// The size of a data set's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NativeSize {
    /// All images have it.
    Uniform(InputShape),
    /// Every image has its own, as photographs have.
    Varied,
}

/// The colours of images with so many channels.
pub(super) fn color_of(channels: usize) -> ColorMode {
    if channels == 1 {
        ColorMode::Grayscale
    } else {
        ColorMode::Rgb
    }
}

/// Reads a file, unless it is larger than an image may be.
pub(super) fn read_image(path: &Path, limits: Limits) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Read {
        path: path.into(),
        source,
    };
    let too_large = |found| DataError::Image {
        name: path.display().to_string(),
        source: ImageError::TooManyBytes {
            found,
            limit: limits.bytes,
        },
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        // Opening a pipe would wait for someone to write to it.
        return Err(failed(std::io::Error::other("it is no regular file")));
    }
    if metadata.len() > limits.bytes as u64 {
        return Err(too_large(usize::try_from(metadata.len()).unwrap_or(usize::MAX)));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    let file = File::open(path).map_err(failed)?;
    // It may have grown.
    file.take(limits.bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > limits.bytes {
        return Err(too_large(bytes.len()));
    }
    Ok(bytes)
}

/// The size of encoded images: one where some of them, spread over all, have the same. Images that can't be read don't
/// count: who uses them will hear of it.
pub(super) fn native_size(source: &dyn Source) -> NativeSize {
    let count = source.len();
    let probes = (0..PROBES.min(count)).map(|probe| probe * count / PROBES.min(count));
    let sizes = probes.filter_map(|index| {
        let bytes = source.encoded(index).ok()??;
        dimensions(&bytes).ok()
    });
    let mut sizes: Vec<(u32, u32)> = sizes.collect();
    sizes.dedup();
    match sizes.as_slice() {
        &[(width, height)] => NativeSize::Uniform(InputShape {
            channels: 3,
            height: height as usize,
            width: width as usize,
        }),
        _ => NativeSize::Varied,
    }
}
