//! From what ONNX Runtime has computed to the bytes of an answer: pooling, selection, rounding, packing.

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::NoUninit;
use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use half::{bf16, f16};

use crate::error::InternalError;
use crate::inference::options::ElementType;
use crate::inference::plan::{Part, Reduction};
use crate::session::LayerOutput;

/// Of zstd: its own default, which packs float32 activations about as well as any.
const ZSTD_LEVEL: i32 = 3;

/// Some images of one of a batch's outputs, as bytes that keep the batch.
struct Shared {
    outputs: Arc<[LayerOutput]>,
    position: usize,
    images: Range<usize>,
}

/// Numbers as bytes.
struct Owned<T>(Vec<T>);

impl<T: NoUninit> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.outputs[self.position].values(self.images.clone()))
    }
}

/// Whether [`bytes`] has nothing to do for a part.
pub(super) fn is_free(
    part: &Part,
    data_type: ElementType,
    outputs: &[LayerOutput],
    images: &Range<usize>,
) -> bool {
    part.reduction == Reduction::Whole
        && data_type == ElementType::Float32
        && cfg!(target_endian = "little")
        // Whoever reads slowly must not keep the activations of many others.
        && images.len() * 2 >= outputs[part.position].images()
}

/// Little-endian bytes of a part of an answer for some images of a batch.
pub(super) fn bytes(
    part: &Part,
    data_type: ElementType,
    outputs: &Arc<[LayerOutput]>,
    images: Range<usize>,
) -> Bytes {
    if is_free(part, data_type, outputs, &images) {
        return Bytes::from_owner(Shared {
            outputs: Arc::clone(outputs),
            position: part.position,
            images,
        });
    }
    let values = values(&part.reduction, &outputs[part.position], images);
    match data_type {
        ElementType::Float32 => owned(
            values
                .iter()
                .map(|value| value.to_bits().to_le())
                .collect::<Vec<_>>(),
        ),
        ElementType::Float16 => half_bytes(vec![f16::ZERO; values.len()], &values),
        ElementType::Bfloat16 => half_bytes(vec![bf16::ZERO; values.len()], &values),
    }
}

/// What a reduction makes of some images, one image after the other.
pub(super) fn values<'a>(
    reduction: &Reduction,
    output: &'a LayerOutput,
    images: Range<usize>,
) -> Cow<'a, [f32]> {
    let values = output.values(images);
    match reduction {
        Reduction::Whole => Cow::Borrowed(values),
        Reduction::Pooled { mean, area } => {
            let pool = if *mean { mean_of } else { max_of };
            Cow::Owned(values.chunks_exact((*area).max(1)).map(pool).collect())
        }
        Reduction::Units(units) => {
            let rows = values.chunks_exact(output.values_per_image().max(1));
            Cow::Owned(
                rows.flat_map(|row| units.iter().map(|&unit| row[unit as usize]))
                    .collect(),
            )
        }
    }
}

/// One zstd frame that says how long its content is.
pub(super) fn compress(chunks: Vec<Bytes>) -> Result<Bytes, InternalError> {
    let length: usize = chunks.iter().map(Bytes::len).sum();
    compress_pieces(chunks, Some(length as u64))
}

/// One zstd frame of pieces that are made one after the other.
pub(super) fn compress_pieces(
    pieces: impl IntoIterator<Item = Bytes>,
    length: Option<u64>,
) -> Result<Bytes, InternalError> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.set_pledged_src_size(length)?;
    for piece in pieces {
        encoder.write_all(&piece)?;
    }
    Ok(encoder.finish()?.into())
}

fn mean_of(channel: &[f32]) -> f32 {
    let sum: f64 = channel.iter().map(|&value| f64::from(value)).sum();
    (sum / channel.len() as f64) as f32
}

/// NaN where one of the values is.
fn max_of(channel: &[f32]) -> f32 {
    channel
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, |greatest, value| {
            if value > greatest || value.is_nan() {
                value
            } else {
                greatest
            }
        })
}

/// Values rounded to the nearest, in memory that has room for them.
fn half_bytes<T>(mut rounded: Vec<T>, values: &[f32]) -> Bytes
where
    [T]: HalfFloatSliceExt,
    Vec<T>: HalfFloatVecExt,
{
    rounded.convert_from_f32_slice(values);
    let mut bits = rounded.reinterpret_into();
    bits.iter_mut().for_each(|bits| *bits = bits.to_le());
    owned(bits)
}

/// Numbers as the bytes that they are.
fn owned<T: NoUninit + Send + Sync + 'static>(numbers: Vec<T>) -> Bytes {
    Bytes::from_owner(Owned(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_the_nearest_and_little_endian() {
        let values = [1.0, -2.0, 1.0 + 3.0 / 512.0];
        assert_eq!(
            half_bytes(vec![f16::ZERO; 3], &values),
            [0, 0x3c, 0, 0xc0, 6, 0x3c][..]
        );
        assert_eq!(
            half_bytes(vec![bf16::ZERO; 3], &values),
            [0x80, 0x3f, 0, 0xc0, 0x81, 0x3f][..]
        );
    }

    #[test]
    fn channels_are_pooled() {
        assert_eq!(mean_of(&[1.0, 2.0, 6.0]), 3.0);
        assert_eq!(max_of(&[-1.0, -3.0]), -1.0);
        assert!(max_of(&[1.0, f32::NAN, 2.0]).is_nan());
    }

    #[test]
    fn packed_chunks_are_one_frame_with_its_length() {
        let chunks = [Bytes::from_static(b"activ"), Bytes::from_static(b"ations")];
        let packed = compress(chunks.to_vec()).unwrap();
        assert_eq!(zstd::bulk::decompress(&packed, 11).unwrap(), b"activations");
        assert_eq!(
            zstd::zstd_safe::get_frame_content_size(&packed).unwrap(),
            Some(11)
        );
    }
}
