//! The tensors of a network by name, in the order of a checkpoint.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use model::checkpoint::{Dtype, View};
use model::network::TensorRole;
use model::{CheckpointError, Network};
use tch::{Device, Kind, TchError, Tensor, no_grad};

use super::NetworkError;

/// Weights and buffers of a network.
#[derive(Debug)]
pub struct TensorStore {
    tensors: Vec<Entry>,
    index: HashMap<String, usize>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    role: TensorRole,
    tensor: Tensor,
    gradient_memory: OnceCell<Tensor>,
}

impl TensorStore {
    /// `tensors` become the store's, in their order; parameters will require gradients.
    pub(crate) fn new(tensors: Vec<(String, TensorRole, Tensor)>) -> Result<Self, TchError> {
        let index = tensors
            .iter()
            .enumerate()
            .map(|(index, (name, ..))| (name.clone(), index))
            .collect();
        let tensors = tensors
            .into_iter()
            .map(|(name, role, tensor)| {
                let trained = role == TensorRole::Parameter;
                Ok(Entry {
                    name,
                    role,
                    tensor: tensor.f_set_requires_grad(trained)?,
                    gradient_memory: OnceCell::new(),
                })
            })
            .collect::<Result<_, TchError>>()?;
        Ok(Self { tensors, index })
    }

    /// `bytes` gives a tensor's elements by name: little-endian, row-major, of the type and shape that the network says.
    pub(super) fn load<'a>(
        network: &Network,
        device: Device,
        bytes: impl Fn(&str) -> Result<Cow<'a, [u8]>, CheckpointError>,
    ) -> Result<Self, NetworkError> {
        let mut tensors = Vec::new();
        for spec in network.tensors() {
            let bytes = bytes(&spec.name)?;
            let kind = match spec.role {
                TensorRole::Parameter | TensorRole::RunningStatistic => Kind::Float,
                TensorRole::BatchCount => Kind::Int64,
            };
            let shape: Vec<i64> = spec.shape.iter().map(|&length| length as i64).collect();
            let tensor = Tensor::f_from_data_size(&bytes, &shape, kind)?.f_to(device)?;
            tensors.push((spec.name, spec.role, tensor));
        }
        Ok(Self::new(tensors)?)
    }

    /// A tensor by name.
    ///
    /// # Panics
    /// Where the network has no tensor of that name: names come from the [`Network`] that the store was made for.
    pub fn get(&self, name: &str) -> &Tensor {
        &self.entry(name).tensor
    }

    /// Memory for a tensor's gradient, kept from step to step. It is taken when first asked for; on the CPU it costs
    /// nothing before it is written.
    ///
    /// # Errors
    /// libtorch's, where memory doesn't suffice.
    ///
    /// # Panics
    /// As [`TensorStore::get`].
    pub(crate) fn gradient_memory(&self, name: &str) -> Result<&Tensor, TchError> {
        let Entry {
            tensor,
            gradient_memory,
            ..
        } = self.entry(name);
        if let Some(memory) = gradient_memory.get() {
            return Ok(memory);
        }
        let memory = tensor.detach().f_empty_like()?;
        Ok(gradient_memory.get_or_init(|| memory))
    }

    fn entry(&self, name: &str) -> &Entry {
        match self.index.get(name) {
            Some(&index) => &self.tensors[index],
            None => panic!("the network has no tensor `{name}`"),
        }
    }

    /// Every tensor with its name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|entry| (entry.name.as_str(), &entry.tensor))
    }

    /// The trained tensors with their names.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let trained = self
            .tensors
            .iter()
            .filter(|entry| entry.role == TensorRole::Parameter);
        trained.map(|entry| (entry.name.as_str(), &entry.tensor))
    }

    /// Whether every number is finite.
    ///
    /// # Errors
    /// libtorch's.
    pub fn is_finite(&self) -> Result<bool, TchError> {
        no_grad(|| {
            for (_, tensor) in self.tensors() {
                // Neither copies the tensor, as libtorch's own test does, and both are NaN where one number is.
                let (least, most) = tensor.f_aminmax(None, false)?;
                if !(least.f_double_value(&[])?.is_finite() && most.f_double_value(&[])?.is_finite()) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Every tensor, to be written to a checkpoint.
    pub fn stored(&self) -> Vec<(String, StoredTensor)> {
        self.tensors()
            .map(|(name, tensor)| (name.to_owned(), StoredTensor::new(tensor)))
            .collect()
    }
}

/// A tensor on any device that a checkpoint writer can ask for its bytes.
#[derive(Debug)]
pub struct StoredTensor {
    tensor: Tensor,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl StoredTensor {
    /// Shares the tensor's memory. Elements of kinds other than int64 and bfloat16 are stored as float32.
    pub fn new(tensor: &Tensor) -> Self {
        let shape = tensor
            .size()
            .iter()
            .map(|&length| usize::try_from(length).unwrap_or(0))
            .collect();
        let dtype = match tensor.kind() {
            Kind::Int64 => Dtype::I64,
            Kind::BFloat16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        Self {
            tensor: tensor.detach(),
            shape,
            dtype,
        }
    }
}

impl View for StoredTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let kind = match self.dtype {
            Dtype::I64 => Kind::Int64,
            Dtype::BF16 => Kind::BFloat16,
            _ => Kind::Float,
        };
        let host = self.tensor.to_device(Device::Cpu).to_kind(kind).contiguous();
        let mut bytes = vec![0; self.data_len()];
        host.copy_data_u8(&mut bytes, host.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        let width = match self.dtype {
            Dtype::I64 => 8,
            Dtype::BF16 => 2,
            _ => 4,
        };
        self.shape.iter().product::<usize>() * width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_that_is_not_finite_is_found_wherever_it_is() {
        let store = |values: &[f32]| {
            let weights = Tensor::from_slice(values);
            let role = TensorRole::Parameter;
            let count = ("count".to_owned(), TensorRole::BatchCount, Tensor::from(3_i64));
            TensorStore::new(vec![("weights".to_owned(), role, weights), count]).unwrap()
        };
        // Longer than a register, with a rest.
        let finite: Vec<f32> = (0..37).map(|index| index as f32 - 20.0).collect();
        assert!(store(&finite).is_finite().unwrap());
        assert!(store(&[f32::MAX, f32::MAX]).is_finite().unwrap());
        for index in 0..finite.len() {
            for ruined in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = finite.clone();
                values[index] = ruined;
                assert!(!store(&values).is_finite().unwrap(), "{ruined} at {index}");
            }
        }
    }
}
