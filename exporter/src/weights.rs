//! The contents of constants: small ones in memory, weights as views of the checkpoint's memory map that are put in order,
//! scaled and rounded on their way into the bundle. However large the network is, one block of it at a time is copied.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use model::{Checkpoint, WeightType};
use proto::onnx::tensor_proto::DataType;
use thiserror::Error;

/// Elements that are handed on at a time, about: a block and its encoded bytes fit a core's own cache.
const BLOCK: usize = 1 << 16;

/// Rows and columns of a matrix that are transposed at a time: a cache line of either.
const TILE: usize = 16;

/// The elements of a constant.
#[derive(Clone, Debug)]
pub(crate) enum TensorData<'a> {
    /// Shapes, axes, indices.
    Integers(Vec<i64>),
    /// A few numbers, computed by the exporter.
    Floats {
        /// Row-major.
        values: Vec<f32>,
        /// As they are stored.
        element: WeightType,
    },
    /// A float32 tensor of the checkpoint.
    Stored(StoredTensor<'a>),
}

/// A float32 tensor of the checkpoint, seen as matrices `[channels, fan_in]`: one for a convolution, one a position for
/// a locally connected layer.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor<'a> {
    /// Where the elements lie.
    pub(crate) checkpoint: &'a Checkpoint,
    /// The elements, little-endian.
    pub(crate) bytes: &'a [u8],
    /// Rows of a matrix: output channels.
    pub(crate) channels: usize,
    /// Columns of a matrix: inputs of one neuron.
    pub(crate) fan_in: usize,
    /// Whether the checkpoint holds the matrices transposed, `[fan_in, channels]`.
    pub(crate) transposed: bool,
    /// What every output channel is multiplied by.
    pub(crate) factors: Option<Vec<f64>>,
    /// As the elements are to be stored.
    pub(crate) element: WeightType,
}

/// A number that half precision can't hold.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[error("the value {0} is beyond half precision, whose largest number is 65504")]
pub(crate) struct Overflow(pub(crate) f32);

impl<'a> TensorData<'a> {
    /// A few numbers in single precision.
    #[cfg(test)]
    pub(crate) fn float32(values: Vec<f32>) -> Self {
        Self::Floats {
            values,
            element: WeightType::Fp32,
        }
    }

    /// ONNX's type of the elements.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Integers(_) => DataType::Int64,
            Self::Floats { element, .. } | Self::Stored(StoredTensor { element, .. }) => data_type(*element),
        }
    }

    /// Bytes of all elements.
    pub(crate) fn byte_length(&self) -> usize {
        match self {
            Self::Integers(values) => values.len() * size_of::<i64>(),
            Self::Floats { values, element } => values.len() * element.bytes(),
            Self::Stored(tensor) => tensor.bytes.len() / size_of::<f32>() * tensor.element.bytes(),
        }
    }

    /// The elements' little-endian bytes; for small tensors.
    ///
    /// # Errors
    /// [`Overflow`].
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, Overflow> {
        let mut bytes = Vec::with_capacity(self.byte_length());
        self.visit(&mut |block: &mut Vec<u8>| {
            bytes.append(block);
            Ok::<_, Overflow>(())
        })?;
        Ok(bytes)
    }

    /// Gives the elements' little-endian bytes, in order, a block at a time. `visit` may take a block and leave another
    /// buffer in its place.
    ///
    /// # Errors
    /// [`Overflow`], and those of `visit`.
    pub(crate) fn visit<E: From<Overflow>>(
        &'a self,
        visit: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Integers(values) => {
                visit(&mut values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Self::Floats { values, element } => {
                let mut bytes = Vec::new();
                encode(values, *element, &mut bytes)?;
                visit(&mut bytes)
            }
            Self::Stored(tensor) => tensor.visit(visit),
        }
    }
}

/// ONNX's name of an element type.
pub(crate) fn data_type(element: WeightType) -> DataType {
    match element {
        WeightType::Fp32 => DataType::Float,
        WeightType::Fp16 => DataType::Float16,
        WeightType::Bf16 => DataType::Bfloat16,
    }
}

impl StoredTensor<'_> {
    fn visit<E: From<Overflow>>(
        &self,
        visit: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = self.bytes.len() / size_of::<f32>() / self.fan_in;
        // Whole tiles, lest a cache line of the checkpoint is read for two blocks.
        let rows_per_block = (BLOCK / self.fan_in / TILE).max(1) * TILE;
        let mut values = vec![0.0; rows_per_block.min(rows) * self.fan_in];
        let mut bytes = Vec::new();
        let mut row = 0;
        while row < rows {
            let block_end = (row + rows_per_block).min(rows);
            let first = row;
            self.load(first, block_end);
            // A block has parts of several matrices.
            while row < block_end {
                let end = (row / self.channels + 1) * self.channels;
                let end = end.min(block_end);
                let part = &mut values[(row - first) * self.fan_in..(end - first) * self.fan_in];
                self.fill(row, part);
                row = end;
            }
            encode(
                &values[..(block_end - first) * self.fan_in],
                self.element,
                &mut bytes,
            )?;
            self.release(first, block_end);
            visit(&mut bytes)?;
        }
        Ok(())
    }

    /// Writes some rows of one matrix to `output`, the first of them being the `row`-th of all.
    fn fill(&self, row: usize, output: &mut [f32]) {
        let (elements, _) = self.bytes.as_chunks::<4>();
        let (position, channel) = (row / self.channels, row % self.channels);
        let matrix = self.channels * self.fan_in;
        let matrix = &elements[position * matrix..(position + 1) * matrix];
        let rows = output.len() / self.fan_in;
        if self.transposed {
            for top in (0..rows).step_by(TILE) {
                let tile = &mut output[top * self.fan_in..(top + TILE).min(rows) * self.fan_in];
                for (column, source) in matrix.chunks_exact(self.channels).enumerate() {
                    let source = &source[channel + top..];
                    for (row, value) in tile.chunks_exact_mut(self.fan_in).zip(source) {
                        row[column] = f32::from_le_bytes(*value);
                    }
                }
            }
        } else {
            let source = &matrix[channel * self.fan_in..][..output.len()];
            for (value, output) in source.iter().zip(&mut *output) {
                *output = f32::from_le_bytes(*value);
            }
        }
        if let Some(factors) = &self.factors {
            let factors = &factors[channel..channel + rows];
            for (row, &factor) in output.chunks_exact_mut(self.fan_in).zip(factors) {
                for value in row {
                    // In double precision, so that folding rounds once.
                    *value = (f64::from(*value) * factor) as f32;
                }
            }
        }
    }

    /// Brings in the checkpoint's pages for some rows, where they weren't brought in for the row before them.
    fn load(&self, first: usize, end: usize) {
        let row = self.fan_in * size_of::<f32>();
        let rows = if self.transposed {
            // Those of the matrices that begin here.
            first.next_multiple_of(self.channels)..end.next_multiple_of(self.channels)
        } else {
            first..end
        };
        if rows.start < rows.end {
            self.checkpoint
                .load(&self.bytes[rows.start * row..rows.end * row]);
        }
    }

    /// Lets go of the checkpoint's pages that rows have come from.
    fn release(&self, first: usize, end: usize) {
        let matrix = self.channels * self.fan_in * size_of::<f32>();
        let row = self.fan_in * size_of::<f32>();
        let range = if self.transposed {
            // The elements of a row lie all over its matrix, which is done with its last row.
            first / self.channels * matrix..end / self.channels * matrix
        } else {
            first * row..end * row
        };
        self.checkpoint.release(&self.bytes[range]);
    }
}

/// Numbers in the given type, little-endian, in the place of what is in `bytes`.
fn encode(values: &[f32], element: WeightType, bytes: &mut Vec<u8>) -> Result<(), Overflow> {
    bytes.resize(values.len() * element.bytes(), 0);
    let output = bytes.as_mut_slice();
    match element {
        WeightType::Fp32 => {
            let (output, _) = output.as_chunks_mut::<4>();
            for (output, value) in output.iter_mut().zip(values) {
                *output = value.to_le_bytes();
            }
        }
        WeightType::Bf16 => {
            let (output, _) = output.as_chunks_mut::<2>();
            for (output, value) in output.iter_mut().zip(values) {
                *output = bf16::from_f32(*value).to_le_bytes();
            }
        }
        WeightType::Fp16 => {
            let mut halves = vec![f16::ZERO; values.len()];
            halves.convert_from_f32_slice(values);
            let (output, _) = output.as_chunks_mut::<2>();
            for ((output, half), &value) in output.iter_mut().zip(&halves).zip(values) {
                // What is no number already is none of half precision's doing.
                if !half.is_finite() && value.is_finite() {
                    return Err(Overflow(value));
                }
                *output = half.to_le_bytes();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use model::checkpoint::{self, Dtype, TensorView};
    use model::{Architecture, CheckpointHeader, Connectivity, InputShape, Preprocessing};
    use proptest::prelude::*;

    use super::*;

    /// A checkpoint whose only tensor that counts here is the readout's weights `[classes, features]`.
    fn checkpoint(folder: &Path, values: &[f32], features: usize) -> Checkpoint {
        let input = InputShape {
            channels: 1,
            height: 4,
            width: 4,
        };
        let mut architecture = Architecture::resnet_cifar(1, input, features, 1, Connectivity::Convolutional);
        architecture.blocks = vec![1];
        architecture.classes = values.len() / features;
        let network = architecture.network().unwrap();
        let stored: Vec<_> = network
            .tensors()
            .into_iter()
            .map(|spec| {
                let count: usize = spec.shape.iter().product();
                let bytes: Vec<u8> = match spec.name.as_str() {
                    "fc.weight" => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                    name if name.ends_with("num_batches_tracked") => vec![0; 8],
                    _ => vec![0; count * 4],
                };
                let dtype = if spec.shape.is_empty() {
                    Dtype::I64
                } else {
                    Dtype::F32
                };
                (spec, dtype, bytes)
            })
            .collect();
        let views: Vec<_> = stored
            .iter()
            .map(|(spec, dtype, bytes)| {
                let (dtype, shape) = (*dtype, spec.shape.as_slice());
                (spec.name.clone(), TensorView { dtype, shape, bytes })
            })
            .collect();
        let header = CheckpointHeader {
            preprocessing: Preprocessing::unit_range(input),
            architecture,
            class_names: Vec::new(),
            provenance: BTreeMap::new(),
        };
        let path = folder.join("net.safetensors");
        checkpoint::write(&path, &header, &views).unwrap();
        Checkpoint::open(&path).unwrap()
    }

    /// The stored tensor's elements as single precision.
    fn decoded(tensor: StoredTensor<'_>) -> Vec<f32> {
        let element = tensor.element;
        let bytes = TensorData::Stored(tensor).bytes().unwrap();
        match element {
            WeightType::Fp32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
            WeightType::Fp16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&bytes| f16::from_le_bytes(bytes).to_f32())
                .collect(),
            WeightType::Bf16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&bytes| bf16::from_le_bytes(bytes).to_f32())
                .collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_element_gets_to_its_place_with_its_channels_factor(
            matrices in 1_usize..5,
            channels in 1_usize..40,
            fan_in in 1_usize..40,
            transposed: bool,
            scaled: bool,
            element in prop::sample::select(vec![WeightType::Fp32, WeightType::Fp16, WeightType::Bf16]),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let count = matrices * channels * fan_in;
            // bfloat16 holds whole numbers up to 256 exactly.
            let values: Vec<_> = (0..count).map(|index| (index % 125) as f32).collect();
            let checkpoint = checkpoint(folder.path(), &values, fan_in);
            let factors: Option<Vec<_>> =
                scaled.then(|| (0..channels).map(|channel| [1.0, -2.0, 0.5][channel % 3]).collect());
            let stored = StoredTensor {
                checkpoint: &checkpoint,
                bytes: checkpoint.tensor("fc.weight").unwrap().bytes,
                channels,
                fan_in,
                transposed,
                factors: factors.clone(),
                element,
            };
            let expected: Vec<_> = (0..count)
                .map(|index| {
                    let (position, channel, input) =
                        (index / fan_in / channels, index / fan_in % channels, index % fan_in);
                    let matrix = &values[position * channels * fan_in..];
                    let value =
                        if transposed { matrix[input * channels + channel] } else { matrix[channel * fan_in + input] };
                    factors.as_ref().map_or(value, |factors| value * factors[channel] as f32)
                })
                .collect();
            prop_assert_eq!(decoded(stored), expected);
        }
    }

    #[test]
    fn blocks_end_inside_matrices() {
        let folder = tempfile::tempdir().unwrap();
        // Neither a block's rows nor a matrix's are a multiple of the other.
        let (channels, fan_in) = (7, 300);
        let rows = channels * (2 * BLOCK / fan_in / channels + 3);
        assert_ne!(BLOCK / fan_in % channels, 0);
        let values: Vec<_> = (0..rows * fan_in).map(|index| index as f32).collect();
        let checkpoint = checkpoint(folder.path(), &values, fan_in);
        let stored = StoredTensor {
            checkpoint: &checkpoint,
            bytes: checkpoint.tensor("fc.weight").unwrap().bytes,
            channels,
            fan_in,
            transposed: true,
            factors: None,
            element: WeightType::Fp32,
        };
        let matrix = channels * fan_in;
        let expected = (0..values.len()).map(|index| {
            let (channel, input) = (index / fan_in % channels, index % fan_in);
            values[index / matrix * matrix + input * channels + channel]
        });
        assert!(decoded(stored).into_iter().eq(expected));
    }

    #[test]
    fn what_half_precision_cannot_hold_is_refused() {
        let floats = |element, value| TensorData::Floats {
            values: vec![1.0, value],
            element,
        };
        assert_eq!(floats(WeightType::Fp16, 7e4).bytes(), Err(Overflow(7e4)));
        assert_eq!(
            floats(WeightType::Fp16, 65504.0).bytes().unwrap(),
            [0, 0x3c, 0xff, 0x7b]
        );
        assert!(floats(WeightType::Fp16, f32::NAN).bytes().is_ok());
        assert_eq!(floats(WeightType::Bf16, 7e4).bytes().unwrap().len(), 4);
    }
}
