//! A network computed as the authors' implementation computes it: activations `[N, C, H, W]` throughout, windows from
//! `unfold`, one `einsum` over weights `[Cin, Cout, H_out, W_out, k, k]`. The baseline of the benchmarks.

use std::collections::HashMap;

use model::network::{Block, ConvolutionUnit, TensorRole};
use model::{Convolution, Network};
use tch::{Device, Kind, TchError, Tensor};
use trainer::network::Mode;

/// PyTorch's defaults for BatchNorm.
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// A network with its weights in the authors' layout.
pub struct AuthorsNetwork {
    network: Network,
    tensors: HashMap<String, Tensor>,
}

impl AuthorsNetwork {
    /// A network whose tensors come from `tensor`, called with name and shape: locally connected weights in the authors'
    /// layout, see [`authors_shape`], all others as in a checkpoint.
    pub fn new(
        network: Network,
        mut tensor: impl FnMut(&str, &[i64]) -> Result<Tensor, TchError>,
    ) -> Result<Self, TchError> {
        let mut tensors = HashMap::new();
        let local: HashMap<String, &Convolution> = network
            .convolutions()
            .filter(|geometry| geometry.locally_connected)
            .map(|geometry| (geometry.weight_name(), geometry))
            .collect();
        for spec in network.tensors() {
            if spec.role == TensorRole::BatchCount {
                continue;
            }
            let shape = match local.get(&spec.name) {
                Some(geometry) => authors_shape(geometry),
                None => spec.shape.iter().map(|&length| length as i64).collect(),
            };
            tensors.insert(spec.name.clone(), tensor(&spec.name, &shape)?);
        }
        Ok(Self { network, tensors })
    }

    /// A network with weights that keep the size of the activations, as a new network of the trainer's does.
    pub fn draw(network: Network, device: Device) -> Result<Self, TchError> {
        let sigmas: HashMap<String, f64> = network
            .convolutions()
            .map(|geometry| {
                let window = geometry.kernel_size * geometry.kernel_size;
                let sigma = (2.0 / (geometry.out_channels * window) as f64).sqrt();
                (geometry.weight_name(), sigma)
            })
            .collect();
        Self::new(network, |name, shape| {
            let options = (Kind::Float, device);
            match sigmas.get(name) {
                Some(sigma) => {
                    let bound = sigma * 3.0_f64.sqrt();
                    Tensor::f_empty(shape, options)?.f_uniform_(-bound, bound)
                }
                None if name.starts_with("fc") => Tensor::f_empty(shape, options)?.f_uniform_(-0.04, 0.04),
                None if name.ends_with(".weight") || name.ends_with(".running_var") => {
                    Tensor::f_ones(shape, options)
                }
                None => Tensor::f_zeros(shape, options),
            }
        })
    }

    /// Puts other tensors in the place of the trained ones, which `replace` gets by name.
    pub fn replace_parameters(
        &mut self,
        mut replace: impl FnMut(&str, &Tensor) -> Result<Tensor, TchError>,
    ) -> Result<(), TchError> {
        for spec in self.network.tensors() {
            if let (TensorRole::Parameter, Some(tensor)) = (spec.role, self.tensors.get_mut(&spec.name)) {
                *tensor = replace(&spec.name, tensor)?;
            }
        }
        Ok(())
    }

    /// Logits `[N, classes]` of images `[N, C, H, W]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut current = self.unit(images, &self.network.stem, mode)?.f_relu()?;
        if let Some(pool) = &self.network.max_pool {
            let [kernel, stride, padding] =
                [pool.kernel_size, pool.stride, pool.padding].map(|length| [length as i64; 2]);
            current = current.f_max_pool2d(kernel, stride, padding, [1, 1], false)?;
        }
        for block in self.network.stages.iter().flat_map(|stage| &stage.blocks) {
            current = self.block(&current, block, mode)?;
        }
        let features = current.f_mean_dim([2, 3].as_slice(), false, Kind::Float)?;
        features.f_linear(self.tensor("fc.weight"), Some(self.tensor("fc.bias")))
    }

    fn block(&self, input: &Tensor, block: &Block, mode: Mode) -> Result<Tensor, TchError> {
        let inner = self.unit(input, &block.first, mode)?.f_relu()?;
        let outer = self.unit(&inner, &block.second, mode)?;
        match &block.downsample {
            Some(downsample) => outer.f_add(&self.unit(input, downsample, mode)?)?.f_relu(),
            None => outer.f_add(input)?.f_relu(),
        }
    }

    fn unit(&self, input: &Tensor, unit: &ConvolutionUnit, mode: Mode) -> Result<Tensor, TchError> {
        let weights = self.tensor(&unit.convolution.weight_name());
        let output = if unit.convolution.locally_connected {
            locally_connected(input, weights, &unit.convolution)?
        } else {
            let [stride, padding] =
                [unit.convolution.stride, unit.convolution.padding].map(|length| [length as i64; 2]);
            input.f_conv2d(weights, None::<&Tensor>, stride, padding, [1, 1], 1)?
        };
        let norm = |suffix: &str| Some(self.tensor(&format!("{}.{suffix}", unit.norm)));
        output.f_batch_norm(
            norm("weight"),
            norm("bias"),
            norm("running_mean"),
            norm("running_var"),
            mode == Mode::Training,
            MOMENTUM,
            EPSILON,
            true,
        )
    }

    /// Names come from the network that the tensors were made for.
    fn tensor(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }
}

/// `[Cin, Cout, H_out, W_out, k, k]`.
pub fn authors_shape(geometry: &Convolution) -> Vec<i64> {
    let (kernel, output) = (geometry.kernel_size, geometry.output);
    [
        geometry.in_channels,
        geometry.out_channels,
        output.height,
        output.width,
        kernel,
        kernel,
    ]
    .map(|length| length as i64)
    .to_vec()
}

/// One layer; `input` is `[N, Cin, H, W]`.
pub fn locally_connected(
    input: &Tensor,
    weights: &Tensor,
    geometry: &Convolution,
) -> Result<Tensor, TchError> {
    let [kernel, stride, padding] =
        [geometry.kernel_size, geometry.stride, geometry.padding].map(|length| length as i64);
    let windows = input
        .f_constant_pad_nd([padding, padding, padding, padding])?
        .f_unfold(2, kernel, stride)?
        .f_unfold(3, kernel, stride)?;
    Tensor::f_einsum("nihwab,iohwab->nohw", &[&windows, weights], None::<&[i64]>)
}
