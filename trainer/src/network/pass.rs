//! One forward pass, in the segments that training may compute a second time: stem, blocks, readout.

use model::network::{Block, ConvolutionUnit};
use tch::{Kind, TchError, Tensor};

use super::activation::Activation;
use super::convolution::{convolution, locally_connected_with};
use super::{Mode, Observer, TensorStore, TorchNetwork};
use crate::engine::{Execution, WeightGradient};

/// PyTorch's default for BatchNorm: weight of the newest batch in the running statistics.
const MOMENTUM: f64 = 0.1;
/// PyTorch's default for BatchNorm: added to the variance.
const EPSILON: f64 = 1e-5;

/// Says what becomes of the weight gradients of locally connected layers.
pub trait LayerGradients {
    /// For the layer whose weights have this name.
    ///
    /// # Errors
    /// libtorch's, where memory for a gradient doesn't suffice.
    fn gradient(&self, weights: &str) -> Result<WeightGradient<'_>, TchError>;
}

/// Gradients are the weights' `grad`, in memory of the store.
impl LayerGradients for TensorStore {
    fn gradient(&self, weights: &str) -> Result<WeightGradient<'_>, TchError> {
        Ok(WeightGradient::Kept(Some(self.gradient_memory(weights)?)))
    }
}

/// What a forward pass is for.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) network: &'a TorchNetwork,
    pub(super) mode: Mode,
    pub(super) gradients: &'a dyn LayerGradients,
    /// Whether BatchNorm's running statistics take note of a training batch.
    pub(super) statistics: bool,
}

impl Pass<'_> {
    pub(super) fn run(&self, images: &Tensor, observer: &mut dyn Observer) -> Result<Tensor, TchError> {
        let mut current = self.stem(images, observer)?;
        for stage in &self.network.network.stages {
            for block in &stage.blocks {
                current = self.block(&current, block, observer)?;
                observer.observe(&block.name, &current)?;
            }
            observer.observe(&stage.name, &current)?;
        }
        self.readout(&current, observer)
    }

    /// From the images `[N, C, H, W]` to the input of the first block.
    pub(super) fn stem(&self, images: &Tensor, observer: &mut dyn Observer) -> Result<Activation, TchError> {
        let input = Activation::nchw(images.shallow_clone());
        let activation = self.unit(&input, &self.network.network.stem, observer)?.relu()?;
        observer.observe("relu", &activation)?;
        let Some(pool) = &self.network.network.max_pool else {
            return Ok(activation);
        };
        let pooled = activation.max_pool(pool)?;
        observer.observe("maxpool", &pooled)?;
        Ok(pooled)
    }

    /// From the output of the last block to the logits `[N, classes]`.
    pub(super) fn readout(
        &self,
        input: &Activation,
        observer: &mut dyn Observer,
    ) -> Result<Tensor, TchError> {
        let features = input.spatial_mean()?;
        let (images, channels) = features.size2()?;
        observer.observe(
            "avgpool",
            &Activation::nchw(features.f_view([images, channels, 1, 1])?),
        )?;
        let kind = self.network.precision(self.mode).kind();
        let parameter = |name: &str| self.network.store.get(name).f_to_kind(kind);
        let logits = features
            .f_to_kind(kind)?
            .f_linear(&parameter("fc.weight")?, Some(parameter("fc.bias")?))?
            .f_to_kind(Kind::Float)?;
        observer.observe("fc", &Activation::nchw(logits.shallow_clone()))?;
        Ok(logits)
    }

    /// One block.
    pub(super) fn block(
        &self,
        input: &Activation,
        block: &Block,
        observer: &mut dyn Observer,
    ) -> Result<Activation, TchError> {
        let inner = self.unit(input, &block.first, observer)?.relu()?;
        observer.observe(&format!("{}.relu1", block.name), &inner)?;
        let outer = self.unit(&inner, &block.second, observer)?;
        let sum = match &block.downsample {
            Some(downsample) => outer.add(&self.unit(input, downsample, observer)?)?,
            None => outer.add(input)?,
        };
        sum.relu()
    }

    fn unit(
        &self,
        input: &Activation,
        unit: &ConvolutionUnit,
        observer: &mut dyn Observer,
    ) -> Result<Activation, TchError> {
        let geometry = &unit.convolution;
        let name = geometry.weight_name();
        let weights = self.network.store.get(&name);
        let output = if geometry.locally_connected {
            let execution = match self.mode {
                Mode::Training => Execution {
                    gradient: self.gradients.gradient(&name)?,
                    precision: self.network.training_precision,
                },
                Mode::Evaluation => Execution::default(),
            };
            locally_connected_with(&input.position_major()?, weights, None, geometry, execution)?
        } else {
            let kind = self.network.precision(self.mode).kind();
            let input = input.channels_first()?.f_to_kind(kind)?;
            let output = convolution(&input, &weights.f_to_kind(kind)?, geometry)?;
            Activation::nchw(output.channels_first()?.f_to_kind(Kind::Float)?)
        };
        observer.observe(&geometry.name, &output)?;
        let normalised = self.batch_norm(&output, &unit.norm)?;
        observer.observe(&unit.norm_layer, &normalised)?;
        Ok(normalised)
    }

    fn batch_norm(&self, input: &Activation, norm: &str) -> Result<Activation, TchError> {
        let tensor = |suffix: &str| self.network.store.get(&format!("{norm}.{suffix}"));
        let training = self.mode == Mode::Training;
        let statistics = !training || self.statistics;
        if training && statistics {
            let _ = tensor("num_batches_tracked").shallow_clone().f_add_scalar_(1)?;
        }
        input.map_channels(|values| {
            values.f_batch_norm(
                Some(tensor("weight")),
                Some(tensor("bias")),
                statistics.then(|| tensor("running_mean")),
                statistics.then(|| tensor("running_var")),
                training,
                MOMENTUM,
                EPSILON,
                true,
            )
        })
    }
}
