//! Tensors of a file that is imported, as a checkpoint's writer asks for them: permuted, in the type of checkpoints.

use std::borrow::Cow;

use half::{bf16, f16};
use model::MappedFile;
use model::checkpoint::{Dtype, TensorFile, View};

use super::ImportError;
use super::pickle::ElementType;

/// Elements of a file, and which of them make up a tensor.
pub(super) struct SourceTensor<'a> {
    pub(super) element: ElementType,
    /// Little-endian.
    pub(super) bytes: &'a [u8],
    /// Of the first element, in elements.
    pub(super) offset: usize,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
    /// Whose pages can be let go once a tensor has been permuted.
    pub(super) file: Option<SourceFile<'a>>,
}

/// The mapped file in which elements lie.
#[derive(Clone, Copy)]
pub(super) enum SourceFile<'a> {
    Torch(&'a MappedFile),
    Safetensors(&'a TensorFile),
}

impl SourceFile<'_> {
    fn release(self, part: &[u8]) {
        match self {
            Self::Torch(file) => file.release(part),
            Self::Safetensors(file) => file.release(part),
        }
    }
}

impl<'a> SourceTensor<'a> {
    /// A tensor whose elements lie one after the other.
    pub(super) fn row_major(element: ElementType, bytes: &'a [u8], shape: &[usize]) -> Self {
        Self {
            element,
            bytes,
            offset: 0,
            shape: shape.to_vec(),
            strides: row_major_strides(shape),
            file: None,
        }
    }
}

/// Strides of a tensor whose elements lie one after the other.
pub(crate) fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for inner in (1..shape.len()).rev() {
        strides[inner - 1] = shape[inner].saturating_mul(strides[inner]);
    }
    strides
}

/// A tensor of the checkpoint that is to be written.
pub(super) enum ImportedTensor<'a> {
    /// From the file.
    Stored(StoredTensor<'a>),
    /// The batch count of a BatchNorm that was trained before PyTorch counted batches.
    NoBatches,
}

/// A tensor of the file, permuted when its bytes are asked for.
pub(super) struct StoredTensor<'a> {
    bytes: &'a [u8],
    element: ElementType,
    offset: usize,
    /// Length and stride of every dimension, in the new order.
    dimensions: Vec<(usize, usize)>,
    dtype: Dtype,
    shape: Vec<usize>,
    file: Option<SourceFile<'a>>,
}

impl<'a> StoredTensor<'a> {
    /// `order` are the source's dimensions in their new order, `shape` what the checkpoint makes of them. `name` is for
    /// the error.
    ///
    /// # Errors
    /// [`ImportError::Network`] where the elements can't become `dtype`.
    pub(super) fn new(
        name: &str,
        source: &SourceTensor<'a>,
        order: &[usize],
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Result<Self, ImportError> {
        let &SourceTensor {
            element,
            bytes,
            offset,
            file,
            ..
        } = source;
        let fits = match dtype {
            Dtype::I64 => element == ElementType::Long,
            _ => !matches!(element, ElementType::Long | ElementType::Other),
        };
        if !fits {
            return Err(ImportError::Network(format!(
                "`{name}` has elements of type {element:?} instead of {dtype:?}"
            )));
        }
        let dimensions = order
            .iter()
            .map(|&dimension| (source.shape[dimension], source.strides[dimension]))
            .collect();
        Ok(Self {
            bytes,
            element,
            offset,
            dimensions,
            dtype,
            shape,
            file,
        })
    }

    /// The bytes as they are, where they lie in the order in which they are wanted.
    fn in_place(&self) -> Option<&'a [u8]> {
        let width = match self.element {
            ElementType::Float => 4,
            ElementType::Long => 8,
            _ => return None,
        };
        let (lengths, strides): (Vec<usize>, Vec<usize>) = self.dimensions.iter().copied().unzip();
        let count: usize = lengths.iter().product();
        let from = self.offset * width;
        (strides == row_major_strides(&lengths))
            .then(|| self.bytes.get(from..from + count * width))
            .flatten()
    }

    /// Calls `push` with the bytes of every element in the new order. Whoever made the source has checked that they are
    /// all there.
    fn for_each<const WIDTH: usize>(&self, mut push: impl FnMut([u8; WIDTH])) {
        let count: usize = self.dimensions.iter().map(|&(length, _)| length).product();
        let mut position = vec![0; self.dimensions.len()];
        let mut index = self.offset;
        for _ in 0..count {
            let mut element = [0; WIDTH];
            element.copy_from_slice(&self.bytes[index * WIDTH..(index + 1) * WIDTH]);
            push(element);
            for (place, &(length, stride)) in position.iter_mut().zip(&self.dimensions).rev() {
                *place += 1;
                index += stride;
                if *place < length {
                    break;
                }
                index -= stride * length;
                *place = 0;
            }
        }
    }
}

impl View for ImportedTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Stored(tensor) => tensor.dtype,
            Self::NoBatches => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Stored(tensor) => &tensor.shape,
            Self::NoBatches => &[],
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = match self {
            Self::Stored(tensor) => tensor,
            Self::NoBatches => return Cow::Borrowed(&[0; 8]),
        };
        if let Some(bytes) = tensor.in_place() {
            return Cow::Borrowed(bytes);
        }
        let mut output = Vec::with_capacity(self.data_len());
        let mut single = |value: f32| output.extend(value.to_le_bytes());
        match tensor.element {
            ElementType::Double => tensor.for_each(|bytes| single(f64::from_le_bytes(bytes) as f32)),
            ElementType::Half => tensor.for_each(|bytes| single(f16::from_le_bytes(bytes).to_f32())),
            ElementType::BFloat16 => tensor.for_each(|bytes| single(bf16::from_le_bytes(bytes).to_f32())),
            ElementType::Long => tensor.for_each(|bytes: [u8; 8]| output.extend(bytes)),
            ElementType::Float | ElementType::Other => tensor.for_each(|bytes: [u8; 4]| output.extend(bytes)),
        }
        if let Some(file) = tensor.file {
            file.release(tensor.bytes);
        }
        Cow::Owned(output)
    }

    fn data_len(&self) -> usize {
        let width = if self.dtype() == Dtype::I64 { 8 } else { 4 };
        self.shape().iter().product::<usize>() * width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(element: ElementType, bytes: &[u8], shape: &[usize], order: &[usize]) -> Vec<f32> {
        let source = SourceTensor::row_major(element, bytes, shape);
        let permuted: Vec<usize> = order.iter().map(|&dimension| shape[dimension]).collect();
        let tensor = StoredTensor::new("w", &source, order, Dtype::F32, permuted).unwrap();
        let tensor = ImportedTensor::Stored(tensor);
        let bytes = tensor.data();
        assert_eq!(bytes.len(), tensor.data_len());
        model::checkpoint::f32_values(&bytes).collect()
    }

    #[test]
    fn every_type_of_real_numbers_becomes_float32() {
        let values = [0.5_f32, -2.0, 1.0e-3, 70.0, 0.0, 3.0];
        let bytes = |encode: &dyn Fn(f32) -> Vec<u8>| {
            values
                .iter()
                .flat_map(|&value| encode(value))
                .collect::<Vec<u8>>()
        };
        let single = bytes(&|value| value.to_le_bytes().to_vec());
        let double = bytes(&|value| f64::from(value).to_le_bytes().to_vec());
        let half = bytes(&|value| f16::from_f32(value).to_le_bytes().to_vec());
        let brain = bytes(&|value| bf16::from_f32(value).to_le_bytes().to_vec());
        for order in [[0, 1], [1, 0]] {
            let expected = imported(ElementType::Float, &single, &[2, 3], &order);
            assert_eq!(imported(ElementType::Double, &double, &[2, 3], &order), expected);
            for (element, bytes, precision) in [
                (ElementType::Half, &half, 1e-3),
                (ElementType::BFloat16, &brain, 1e-2),
            ] {
                let found = imported(element, bytes, &[2, 3], &order);
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(
                        (found - expected).abs() <= precision * expected.abs(),
                        "{found} for {expected}"
                    );
                }
            }
        }
        assert_eq!(imported(ElementType::Float, &single, &[2, 3], &[0, 1]), values);
        assert_eq!(
            imported(ElementType::Float, &single, &[2, 3], &[1, 0]),
            [0.5, 70.0, -2.0, 0.0, 1.0e-3, 3.0]
        );
    }

    #[test]
    fn whole_numbers_are_no_weights() {
        let source = SourceTensor::row_major(ElementType::Long, &[0; 8], &[1]);
        let error = StoredTensor::new("fc.bias", &source, &[0], Dtype::F32, vec![1]);
        let message = error.err().unwrap().to_string();
        assert!(
            message.contains("`fc.bias` has elements of type Long"),
            "{message}"
        );
    }

    #[test]
    fn strides_are_those_of_rows() {
        assert_eq!(row_major_strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(row_major_strides(&[]), [0; 0]);
    }
}
