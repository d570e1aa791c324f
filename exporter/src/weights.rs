//! The contents of constants: small ones in memory, weights as views of the checkpoint's memory map that are scaled on
//! their way into the bundle. However large the network is, one chunk of it at a time is copied.

use std::convert::Infallible;

use proto::onnx::tensor_proto::DataType;

/// Bytes that are handed on at a time; a multiple of every element's size.
const CHUNK: usize = 1 << 20;

/// The elements of a constant.
#[derive(Clone, Debug)]
pub(crate) enum TensorData<'a> {
    /// Shapes, axes and the like.
    Integers(Vec<i64>),
    /// A few numbers, computed by the exporter.
    Floats(Vec<f32>),
    /// A float32 tensor of the checkpoint, each channel times its factor.
    Stored {
        /// Little-endian.
        bytes: &'a [u8],
        /// `None`: the bytes as they are.
        scaling: Option<ChannelScaling>,
    },
}

/// One factor per channel of a tensor that is seen as `[outer, channels, run]`.
#[derive(Clone, Debug)]
pub(crate) struct ChannelScaling {
    /// One per channel.
    pub(crate) factors: Vec<f64>,
    /// Elements in a row that belong to one channel: 1 where channels are the last axis.
    pub(crate) run: usize,
}

impl TensorData<'_> {
    /// ONNX's type of the elements.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Integers(_) => DataType::Int64,
            Self::Floats(_) | Self::Stored { .. } => DataType::Float,
        }
    }

    /// Bytes of all elements.
    pub(crate) fn byte_length(&self) -> usize {
        match self {
            Self::Integers(values) => values.len() * size_of::<i64>(),
            Self::Floats(values) => values.len() * size_of::<f32>(),
            Self::Stored { bytes, .. } => bytes.len(),
        }
    }

    /// The elements' little-endian bytes; for small tensors.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.byte_length());
        let Ok(()) = self.visit(|chunk| {
            bytes.extend_from_slice(chunk);
            Ok::<_, Infallible>(())
        });
        bytes
    }

    /// Gives the elements' little-endian bytes, in order, a chunk at a time.
    pub(crate) fn visit<E>(&self, mut visit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Integers(values) => {
                let bytes: Vec<_> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                bytes.chunks(CHUNK).try_for_each(visit)
            }
            Self::Floats(values) => {
                let bytes: Vec<_> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                bytes.chunks(CHUNK).try_for_each(visit)
            }
            Self::Stored { bytes, scaling: None } => bytes.chunks(CHUNK).try_for_each(visit),
            Self::Stored {
                bytes,
                scaling: Some(scaling),
            } => {
                let mut scaled = vec![0; CHUNK.min(bytes.len())];
                let mut first = 0;
                for chunk in bytes.chunks(CHUNK) {
                    let output = &mut scaled[..chunk.len()];
                    scaling.apply(first, chunk, output);
                    visit(output)?;
                    first += chunk.len() / size_of::<f32>();
                }
                Ok(())
            }
        }
    }
}

impl ChannelScaling {
    /// Scales `input`, float32 elements from the `first` one of the tensor on, into `output` of the same length.
    fn apply(&self, first: usize, input: &[u8], output: &mut [u8]) {
        let (mut input, _) = input.as_chunks::<4>();
        let (mut output, _) = output.as_chunks_mut::<4>();
        let channels = self.factors.len();
        let mut index = first;
        while !input.is_empty() {
            // The longest stretch whose factors lie side by side, or are one and the same.
            let channel = index / self.run % channels;
            let length = if self.run == 1 {
                channels - channel
            } else {
                self.run - index % self.run
            };
            let length = length.min(input.len());
            let (stretch, rest) = input.split_at(length);
            let (scaled, scaled_rest) = output.split_at_mut(length);
            if self.run == 1 {
                let factors = &self.factors[channel..channel + length];
                for ((value, scaled), &factor) in stretch.iter().zip(scaled).zip(factors) {
                    *scaled = scale(*value, factor);
                }
            } else {
                let factor = self.factors[channel];
                for (value, scaled) in stretch.iter().zip(scaled) {
                    *scaled = scale(*value, factor);
                }
            }
            (input, output) = (rest, scaled_rest);
            index += length;
        }
    }
}

/// In double precision, so that folding rounds once.
fn scale(value: [u8; 4], factor: f64) -> [u8; 4] {
    ((f64::from(f32::from_le_bytes(value)) * factor) as f32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(values: impl Iterator<Item = f32>) -> Vec<u8> {
        values.flat_map(f32::to_le_bytes).collect()
    }

    #[test]
    fn unscaled_weights_are_the_checkpoints_bytes() {
        let bytes: Vec<u8> = (0..2 * CHUNK + 12).map(|index| (index % 251) as u8).collect();
        let data = TensorData::Stored {
            bytes: &bytes,
            scaling: None,
        };
        assert_eq!(data.bytes(), bytes);
        assert_eq!(data.byte_length(), bytes.len());
    }

    #[test]
    fn scaling_goes_on_across_chunks() {
        // Neither a chunk's elements nor the tensor's are a multiple of 3 or of 5.
        let count = 3 * 5 * (CHUNK / 4 / 15 + 7);
        let bytes = stored((0..count).map(|index| index as f32));
        for run in [1, 5] {
            let scaling = ChannelScaling {
                factors: vec![1.0, -2.0, 0.5],
                run,
            };
            let expected = stored((0..count).map(|index| index as f32 * [1.0, -2.0, 0.5][index / run % 3]));
            let data = TensorData::Stored {
                bytes: &bytes,
                scaling: Some(scaling),
            };
            assert!(data.bytes() == expected, "run {run}");
        }
    }

    proptest! {
        #[test]
        fn every_element_gets_its_channels_factor(
            outer in 1_usize..4,
            factors in prop::collection::vec(-3.0_f64..3.0, 1..5),
            run in 1_usize..5,
            split in 0_usize..80,
        ) {
            let count = outer * factors.len() * run;
            let bytes = stored((0..count).map(|index| index as f32 + 0.25));
            let scaling = ChannelScaling { factors: factors.clone(), run };
            let mut output = vec![0; bytes.len()];
            let split = split.min(count);
            let (head, tail) = output.split_at_mut(split * 4);
            scaling.apply(0, &bytes[..split * 4], head);
            scaling.apply(split, &bytes[split * 4..], tail);
            let expected = stored((0..count).map(|index| {
                ((index as f64 + 0.25) * factors[index / run % factors.len()]) as f32
            }));
            prop_assert_eq!(output, expected);
        }
    }
}
