//! Stimuli become the network's input: encoded images, unless they are tiny, are decoded and preprocessed in parallel, off
//! the threads that serve connections; tensors are checked.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;

use bytes::Bytes;
use model::image::ImageError;
use model::{InputShape, Manifest, Preprocessing, Resize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::error::{InternalError, ServerError};
use crate::inference::PreprocessingChoice;
use crate::limits::Limits;
use crate::session::Batch;

/// Bytes of a tensor that is converted without asking another thread: that would take longer.
const SMALL_TENSOR: usize = 64 << 10;

/// A single image that is decoded without asking another thread, for the same reason.
const SMALL_IMAGE: model::image::Limits = model::image::Limits {
    bytes: 16 << 10,
    pixels: 64 * 64,
};

/// What a request wants to be computed.
#[derive(Clone, Debug)]
pub enum Stimuli {
    /// JPEG, PNG, WebP, BMP or TIFF files.
    Images(Vec<Bytes>),
    /// Images as numbers.
    Tensor(TensorStimuli),
}

/// Images as numbers.
#[derive(Clone, Debug)]
pub struct TensorStimuli {
    /// Float32 is the network's input itself, uint8 are pixels of the input's size.
    pub data_type: StimulusType,
    /// `[N, C, H, W]`, for pixels also `[N, H, W, C]`.
    pub shape: Vec<u64>,
    /// The values, little-endian, the last dimension fastest.
    pub data: Bytes,
}

/// Type of the values of a tensor of stimuli.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StimulusType {
    /// IEEE single precision.
    Float32,
    /// Pixels, 0 to 255.
    Uint8,
}

/// The network's input, or a part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// N.
    images: usize,
    /// Of one image.
    shape: InputShape,
    /// `[N, C, H, W]`.
    values: Vec<f32>,
}

/// The stimuli of a request, known to be within the limits, and how they become the network's input.
#[derive(Debug)]
pub struct Prepared {
    stimuli: Stimuli,
    images: usize,
    /// Whether pixels have their channels last.
    channels_last: bool,
    preprocessing: Preprocessing,
    shape: InputShape,
    limits: model::image::Limits,
}

/// Some of a request's images as the network's input.
#[derive(Debug)]
pub struct Decoded {
    /// Those that can be used, in their order.
    pub input: Input,
    /// Those that can't, by their positions in the whole request.
    pub unreadable: Vec<(usize, ImageError)>,
}

/// Turns stimuli into inputs.
#[derive(Debug)]
pub struct Preprocessor {
    /// Where decoding blocks.
    handle: Handle,
    /// As many permits as cores: images decoded at a time, of all requests together.
    permits: Arc<Semaphore>,
    /// Groups that images are divided in at most.
    groups: usize,
    /// Threads that one request may decode on at most.
    parallelism: usize,
    limits: Limits,
}

impl Input {
    /// N.
    pub fn images(&self) -> usize {
        self.images
    }

    /// All of the images.
    pub fn batch(&self) -> Batch<'_> {
        let InputShape {
            channels,
            height,
            width,
        } = self.shape;
        Batch {
            shape: [self.images, channels, height, width],
            values: &self.values,
        }
    }
}

impl Stimuli {
    /// Bytes that they take as they came.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Images(images) => images.iter().map(Bytes::len).sum(),
            Self::Tensor(tensor) => tensor.data.len(),
        }
    }

    /// How many images there are, as far as the request says.
    pub fn images(&self) -> u64 {
        match self {
            Self::Images(images) => images.len() as u64,
            Self::Tensor(tensor) => tensor.shape.first().copied().unwrap_or(0),
        }
    }
}

impl TensorStimuli {
    /// The first value that is infinite or none, with its position.
    pub fn not_finite(&self) -> Option<(usize, f32)> {
        if self.data_type != StimulusType::Float32 {
            return None;
        }
        let (values, _) = self.data.as_chunks();
        let mut values = values.iter().map(|&value| f32::from_le_bytes(value)).enumerate();
        values.find(|(_, value)| !value.is_finite())
    }
}

impl Preprocessor {
    /// Decodes on `handle`'s blocking threads, at most `parallelism` images at a time.
    pub fn new(handle: Handle, parallelism: usize, limits: Limits) -> Self {
        Self {
            handle,
            permits: Arc::new(Semaphore::new(parallelism)),
            // Small groups let the images of several requests take turns.
            groups: parallelism.saturating_mul(4).max(1),
            parallelism,
            limits,
        }
    }

    /// Checks stimuli as far as that can be done without decoding anything.
    ///
    /// # Errors
    /// [`ServerError::NoImages`], [`ServerError::TooManyImages`], [`ServerError::TensorTooLarge`], and
    /// [`ServerError::Tensor`] where a tensor's shape is not the network's or its type doesn't fit the preprocessing.
    pub fn prepare(
        &self,
        stimuli: Stimuli,
        choice: PreprocessingChoice,
        manifest: &Manifest,
    ) -> Result<Prepared, ServerError> {
        let shape = manifest.architecture.input;
        let (images, channels_last) = match &stimuli {
            Stimuli::Images(_) if choice == PreprocessingChoice::None => {
                let message =
                    "the preprocessing `none` is for tensors: images have to be decoded and resized";
                return Err(ServerError::InvalidArgument(message.into()));
            }
            Stimuli::Images(images) => (images.len(), false),
            Stimuli::Tensor(tensor) => {
                check_type(tensor.data_type, choice)?;
                check_tensor(tensor, shape)?
            }
        };
        if images == 0 {
            return Err(ServerError::NoImages);
        }
        let limit = self.limits.images;
        if images > limit {
            return Err(ServerError::TooManyImages { found: images, limit });
        }
        let found = images as u128 * values_per_image(shape) as u128 * size_of::<f32>() as u128;
        let limit = self.limits.tensor_bytes;
        if found > limit as u128 {
            let what = "the network's input";
            return Err(ServerError::TensorTooLarge { what, found, limit });
        }
        let mut preprocessing = manifest.preprocessing.clone();
        if choice == PreprocessingChoice::Stretch {
            preprocessing.resize = Resize::Stretch;
        }
        Ok(Prepared {
            stimuli,
            images,
            channels_last,
            preprocessing,
            shape,
            limits: self.limits.image,
        })
    }

    /// Turns some of a request's images into the network's input.
    ///
    /// # Errors
    /// [`ServerError::Internal`].
    pub async fn decode(
        &self,
        prepared: &Arc<Prepared>,
        images: Range<usize>,
    ) -> Result<Decoded, InternalError> {
        let Stimuli::Tensor(_) = &prepared.stimuli else {
            return self.decode_files(prepared, images).await;
        };
        let bytes = images.len() * values_per_image(prepared.shape) * size_of::<f32>();
        let prepared = Arc::clone(prepared);
        if bytes <= SMALL_TENSOR {
            return prepared.convert(images, 1);
        }
        // As many more threads as decode nothing now.
        let others: Vec<_> = (1..self.parallelism.min(images.len()))
            .map_while(|_| Arc::clone(&self.permits).try_acquire_owned().ok())
            .collect();
        let convert = move || {
            let converted = prepared.convert(images, 1 + others.len());
            drop(others);
            converted
        };
        self.handle.spawn_blocking(convert).await?
    }

    async fn decode_files(
        &self,
        prepared: &Arc<Prepared>,
        images: Range<usize>,
    ) -> Result<Decoded, InternalError> {
        if let Some(decoded) = prepared.decode_small(images.clone()) {
            return decoded;
        }
        let count = images.len();
        let group = count.div_ceil(self.groups).max(1);
        let mut tasks = Vec::with_capacity(self.groups);
        for start in images.clone().step_by(group) {
            let permit = Arc::clone(&self.permits).acquire_owned().await?;
            let prepared = Arc::clone(prepared);
            let end = (start + group).min(images.end);
            tasks.push(self.handle.spawn_blocking(move || {
                let result = prepared.decode(start..end, prepared.limits);
                drop(permit);
                result
            }));
        }
        let mut decoded = Vec::with_capacity(tasks.len());
        for task in tasks {
            decoded.push(task.await??);
        }
        Ok(Decoded::join(decoded, prepared.shape))
    }
}

impl Decoded {
    /// Images one after the other.
    fn join(parts: Vec<Self>, shape: InputShape) -> Self {
        let images: usize = parts.iter().map(|part| part.input.images).sum();
        let mut parts = parts.into_iter();
        let mut joined = parts.next().unwrap_or(Self {
            input: Input {
                images: 0,
                shape,
                values: Vec::new(),
            },
            unreadable: Vec::new(),
        });
        let more = (images - joined.input.images) * values_per_image(shape);
        joined.input.values.reserve_exact(more);
        joined.input.images = images;
        for part in parts {
            joined.input.values.extend_from_slice(&part.input.values);
            joined.unreadable.extend(part.unreadable);
        }
        joined
    }
}

impl Prepared {
    /// N.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Decodes a small image for a small network; nothing where either is not.
    fn decode_small(&self, images: Range<usize>) -> Option<Result<Decoded, InternalError>> {
        if images.len() != 1 || values_per_image(self.shape) * size_of::<f32>() > SMALL_TENSOR {
            return None;
        }
        let limits = model::image::Limits {
            bytes: self.limits.bytes.min(SMALL_IMAGE.bytes),
            pixels: self.limits.pixels.min(SMALL_IMAGE.pixels),
        };
        let decoded = self.decode(images, limits);
        let is_large = decoded.as_ref().is_ok_and(|decoded| {
            matches!(
                decoded.unreadable.first(),
                Some((
                    _,
                    ImageError::TooManyBytes { .. } | ImageError::TooManyPixels { .. }
                ))
            )
        });
        (!is_large).then_some(decoded)
    }

    fn decode(&self, images: Range<usize>, limits: model::image::Limits) -> Result<Decoded, InternalError> {
        let Stimuli::Images(files) = &self.stimuli else {
            return self.convert(images, 1);
        };
        let length = values_per_image(self.shape);
        let mut values = vec![0.0; images.len() * length];
        let mut unreadable = Vec::new();
        let mut read = 0;
        for index in images {
            let image = model::image::decode(&files[index], self.preprocessing.color, limits);
            match image.and_then(|image| self.preprocessing.fit(image, self.shape)) {
                Ok(pixels) => {
                    let output = &mut values[read * length..(read + 1) * length];
                    self.preprocessing.normalise(&pixels, self.shape, output)?;
                    read += 1;
                }
                Err(error) => unreadable.push((index, error)),
            }
        }
        values.truncate(read * length);
        Ok(self.decoded(values, unreadable))
    }

    /// Turns images of a tensor into the network's input, on so many threads.
    fn convert(&self, images: Range<usize>, threads: usize) -> Result<Decoded, InternalError> {
        let Stimuli::Tensor(tensor) = &self.stimuli else {
            return self.decode(images, self.limits);
        };
        let length = values_per_image(self.shape);
        if tensor.data_type == StimulusType::Float32 {
            let bytes = length * size_of::<f32>();
            let values = from_little_endian(&tensor.data[images.start * bytes..images.end * bytes]);
            return Ok(self.decoded(values, Vec::new()));
        }
        let mut values = vec![0.0; images.len() * length];
        let normalise = |first: usize, values: &mut [f32]| -> Result<(), InternalError> {
            for (index, output) in (first..).zip(values.chunks_exact_mut(length)) {
                let pixels = &tensor.data[index * length..(index + 1) * length];
                if self.channels_last {
                    self.preprocessing.normalise(pixels, self.shape, output)?;
                } else {
                    self.preprocessing.normalise_planes(pixels, self.shape, output)?;
                }
            }
            Ok(())
        };
        let group = images.len().div_ceil(threads).max(1);
        let mut groups = images.step_by(group).zip(values.chunks_mut(group * length));
        let own = groups.next();
        std::thread::scope(|scope| {
            let normalise = &normalise;
            let others: Vec<_> = groups
                .map(|(first, values)| scope.spawn(move || normalise(first, values)))
                .collect();
            own.map_or(Ok(()), |(first, values)| normalise(first, values))?;
            let mut results = others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            results.try_for_each(|result| result)
        })?;
        Ok(self.decoded(values, Vec::new()))
    }

    fn decoded(&self, values: Vec<f32>, unreadable: Vec<(usize, ImageError)>) -> Decoded {
        Decoded {
            input: Input {
                images: values.len() / values_per_image(self.shape),
                shape: self.shape,
                values,
            },
            unreadable,
        }
    }
}

/// Refuses a preprocessing that has no meaning for numbers of that type.
fn check_type(data_type: StimulusType, choice: PreprocessingChoice) -> Result<(), ServerError> {
    let message = match (data_type, choice) {
        (StimulusType::Uint8, PreprocessingChoice::None) => {
            "a uint8 tensor holds pixels, which are normalised: the preprocessing `none` needs float32"
        }
        (StimulusType::Float32, PreprocessingChoice::Stretch) => {
            "a float32 tensor is the network's input itself: the preprocessing `stretch` needs images or uint8"
        }
        _ => return Ok(()),
    };
    Err(ServerError::InvalidArgument(message.into()))
}

/// N of a tensor that fits the network, and whether its channels come last. Where both readings fit, they come first.
fn check_tensor(tensor: &TensorStimuli, shape: InputShape) -> Result<(usize, bool), ServerError> {
    let InputShape {
        channels,
        height,
        width,
    } = shape;
    let found = tensor.shape.as_slice();
    let is_image = |found: &[u64], image: [usize; 3]| {
        found
            .iter()
            .copied()
            .eq(image.iter().map(|&length| length as u64))
    };
    let (what, bytes_per_value, last_allowed) = match tensor.data_type {
        StimulusType::Float32 => (
            format!("float32 of shape [N, {channels}, {height}, {width}]"),
            4,
            false,
        ),
        StimulusType::Uint8 => (
            format!(
                "uint8 of shape [N, {channels}, {height}, {width}] or [N, {height}, {width}, {channels}]"
            ),
            1,
            true,
        ),
    };
    let wrong = |problem: String| ServerError::Tensor(format!("{problem}, expected {what}"));
    let (images, channels_last) = match found {
        [images, image @ ..] if is_image(image, [channels, height, width]) => (*images, false),
        [images, image @ ..] if last_allowed && is_image(image, [height, width, channels]) => (*images, true),
        _ => return Err(wrong(format!("its shape is {found:?}"))),
    };
    let bytes = u128::from(images) * (values_per_image(shape) * bytes_per_value) as u128;
    match usize::try_from(images) {
        Ok(images) if bytes == tensor.data.len() as u128 => Ok((images, channels_last)),
        _ => Err(wrong(format!(
            "its shape {found:?} needs {bytes} bytes, but it has {}",
            tensor.data.len()
        ))),
    }
}

fn values_per_image(shape: InputShape) -> usize {
    shape.channels * shape.height * shape.width
}

fn from_little_endian(data: &[u8]) -> Vec<f32> {
    let value = |bytes: &[u8]| bytes.try_into().map_or(0.0, f32::from_le_bytes);
    data.chunks_exact(size_of::<f32>()).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: InputShape = InputShape {
        channels: 1,
        height: 2,
        width: 3,
    };

    fn tensor(data_type: StimulusType, shape: &[u64], bytes: usize) -> TensorStimuli {
        TensorStimuli {
            data_type,
            shape: shape.to_vec(),
            data: vec![0; bytes].into(),
        }
    }

    #[test]
    fn a_tensor_must_have_the_network_s_shape_and_the_bytes_of_its_own() {
        let check = |shape: &[u64], bytes| check_tensor(&tensor(StimulusType::Float32, shape, bytes), SHAPE);
        assert_eq!(check(&[2, 1, 2, 3], 48).unwrap(), (2, false));
        assert_eq!(check(&[0, 1, 2, 3], 0).unwrap(), (0, false));
        let message = check(&[2, 1, 3, 2], 48).unwrap_err().to_string();
        assert!(message.contains("[N, 1, 2, 3]"), "{message}");
        let message = check(&[2, 1, 2, 3], 47).unwrap_err().to_string();
        assert!(message.contains("needs 48 bytes, but it has 47"), "{message}");
        for shape in [&[][..], &[u64::MAX, 1, 2, 3], &[2, 2, 3, 1]] {
            assert!(check(shape, 48).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn pixels_may_have_their_channels_first_or_last() {
        let check = |shape: &[u64], bytes| check_tensor(&tensor(StimulusType::Uint8, shape, bytes), SHAPE);
        assert_eq!(check(&[2, 1, 2, 3], 12).unwrap(), (2, false));
        assert_eq!(check(&[2, 2, 3, 1], 12).unwrap(), (2, true));
        let message = check(&[2, 2, 3, 1], 48).unwrap_err().to_string();
        assert!(message.contains("[N, 1, 2, 3] or [N, 2, 3, 1]"), "{message}");
    }

    #[test]
    fn threads_share_the_images_of_a_tensor() {
        for (shape, channels_last) in [(&[5, 3, 2, 2][..], false), (&[5, 2, 2, 3], true)] {
            let input = InputShape {
                channels: 3,
                height: 2,
                width: 2,
            };
            let tensor = TensorStimuli {
                data_type: StimulusType::Uint8,
                shape: shape.to_vec(),
                data: (0..60).collect::<Vec<u8>>().into(),
            };
            let prepared = Prepared {
                stimuli: Stimuli::Tensor(tensor),
                images: 5,
                channels_last,
                preprocessing: Preprocessing::imagenet(input),
                shape: input,
                limits: model::image::Limits::default(),
            };
            let one = prepared.convert(1..5, 1).unwrap();
            assert_eq!((one.input.images, one.input.values.len()), (4, 48));
            for threads in [2, 3, 4, 9] {
                let several = prepared.convert(1..5, threads).unwrap();
                assert_eq!(several.input.values, one.input.values, "{threads} threads");
            }
        }
    }

    #[test]
    fn bytes_are_read_little_endian() {
        assert_eq!(from_little_endian(&[0, 0, 128, 63, 0, 0, 0, 192]), [1.0, -2.0]);
    }
}
