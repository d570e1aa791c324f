//! A [`model::Network`] with weights in it, computed by libtorch.

mod activation;
mod convolution;
mod initialisation;
mod store;

pub use activation::{Activation, Layout};
pub use convolution::{convolution, locally_connected};
pub use initialisation::Initialisation;
pub use store::{StoredTensor, TensorStore};

use model::network::{Block, ConvolutionUnit};
use model::{Checkpoint, CheckpointError, Network};
use tch::{Device, Kind, TchError, Tensor};
use thiserror::Error;

/// PyTorch's default for BatchNorm: weight of the newest batch in the running statistics.
const MOMENTUM: f64 = 0.1;
/// PyTorch's default for BatchNorm: added to the variance.
const EPSILON: f64 = 1e-5;

/// Why a network can't be built or computed.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
    /// A tensor is not in the checkpoint, or not as it should be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A batch of images of another shape than the network's input.
    #[error("the images have shape {found:?}, the network takes {expected:?}")]
    Input {
        /// Shape of what was given.
        found: Vec<i64>,
        /// `[N, C, H, W]` of what the network takes, N being any number.
        expected: Vec<i64>,
    },
}

/// Whether BatchNorm uses and updates the statistics of the batch, or the running ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch.
    Training,
    /// Running statistics.
    Evaluation,
}

/// A network with its weights on a device.
#[derive(Debug)]
pub struct TorchNetwork {
    network: Network,
    store: TensorStore,
}

/// Sees every layer's activations as they are computed.
pub trait Observer {
    /// `name` is the layer's, as in [`Network::layers`].
    ///
    /// # Errors
    /// Those of whatever the observer does with the activations; they end the forward pass.
    fn observe(&mut self, name: &str, activation: &Activation) -> Result<(), TchError>;
}

/// Sees nothing.
impl Observer for () {
    fn observe(&mut self, _: &str, _: &Activation) -> Result<(), TchError> {
        Ok(())
    }
}

impl<F: FnMut(&str, &Activation) -> Result<(), TchError>> Observer for F {
    fn observe(&mut self, name: &str, activation: &Activation) -> Result<(), TchError> {
        self(name, activation)
    }
}

impl TorchNetwork {
    /// A new network with weights drawn from libtorch's generator (seed it with `tch::manual_seed`).
    ///
    /// # Errors
    /// [`NetworkError::Torch`], for instance where memory doesn't suffice.
    pub fn initialise(
        network: Network,
        initialisation: Initialisation,
        device: Device,
    ) -> Result<Self, NetworkError> {
        let store = initialisation.draw(&network, device)?;
        Ok(Self { network, store })
    }

    /// The network of a checkpoint.
    ///
    /// # Errors
    /// [`NetworkError`] where a tensor can't be read or memory doesn't suffice.
    pub fn load(checkpoint: &Checkpoint, device: Device) -> Result<Self, NetworkError> {
        let network = checkpoint.network().clone();
        let store = TensorStore::load(&network, checkpoint, device)?;
        Ok(Self { network, store })
    }

    /// What is computed, layer by layer.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Weights and buffers.
    pub fn store(&self) -> &TensorStore {
        &self.store
    }

    /// Logits `[N, classes]` of preprocessed images `[N, C, H, W]`.
    ///
    /// # Errors
    /// [`NetworkError::Input`] where the images don't fit, [`NetworkError::Torch`] where libtorch refuses.
    pub fn forward(
        &self,
        images: &Tensor,
        mode: Mode,
        observer: &mut dyn Observer,
    ) -> Result<Tensor, NetworkError> {
        self.check_input(images)?;
        Ok(self.compute(images, mode, observer)?)
    }

    fn compute(&self, images: &Tensor, mode: Mode, observer: &mut dyn Observer) -> Result<Tensor, TchError> {
        let input = Activation::nchw(images.shallow_clone());
        let mut current = self.unit(&input, &self.network.stem, mode, observer)?.relu()?;
        observer.observe("relu", &current)?;
        if let Some(pool) = &self.network.max_pool {
            current = current.max_pool(pool)?;
            observer.observe("maxpool", &current)?;
        }
        for stage in &self.network.stages {
            for block in &stage.blocks {
                current = self.block(&current, block, mode, observer)?;
                observer.observe(&block.name, &current)?;
            }
            observer.observe(&stage.name, &current)?;
        }
        let features = current.spatial_mean()?;
        let (images, channels) = features.size2()?;
        observer.observe(
            "avgpool",
            &Activation::nchw(features.f_view([images, channels, 1, 1])?),
        )?;
        let logits = features.f_linear(self.store.get("fc.weight"), Some(self.store.get("fc.bias")))?;
        observer.observe("fc", &Activation::nchw(logits.shallow_clone()))?;
        Ok(logits)
    }

    fn block(
        &self,
        input: &Activation,
        block: &Block,
        mode: Mode,
        observer: &mut dyn Observer,
    ) -> Result<Activation, TchError> {
        let inner = self.unit(input, &block.first, mode, observer)?.relu()?;
        observer.observe(&format!("{}.relu1", block.name), &inner)?;
        let outer = self.unit(&inner, &block.second, mode, observer)?;
        let sum = match &block.downsample {
            Some(downsample) => outer.add(&self.unit(input, downsample, mode, observer)?)?,
            None => outer.add(input)?,
        };
        sum.relu()
    }

    fn unit(
        &self,
        input: &Activation,
        unit: &ConvolutionUnit,
        mode: Mode,
        observer: &mut dyn Observer,
    ) -> Result<Activation, TchError> {
        let geometry = &unit.convolution;
        let weights = self.store.get(&geometry.weight_name());
        let output = if geometry.locally_connected {
            locally_connected(&input.position_major()?, weights, None, geometry)?
        } else {
            convolution(&input.channels_first()?, weights, geometry)?
        };
        observer.observe(&geometry.name, &output)?;
        let normalised = self.batch_norm(&output, &unit.norm, mode)?;
        observer.observe(&unit.norm_layer, &normalised)?;
        Ok(normalised)
    }

    fn batch_norm(&self, input: &Activation, norm: &str, mode: Mode) -> Result<Activation, TchError> {
        let tensor = |suffix: &str| self.store.get(&format!("{norm}.{suffix}"));
        if mode == Mode::Training {
            let _ = tensor("num_batches_tracked").shallow_clone().f_add_scalar_(1)?;
        }
        input.map_channels(|values| {
            values.f_batch_norm(
                Some(tensor("weight")),
                Some(tensor("bias")),
                Some(tensor("running_mean")),
                Some(tensor("running_var")),
                mode == Mode::Training,
                MOMENTUM,
                EPSILON,
                true,
            )
        })
    }

    fn check_input(&self, images: &Tensor) -> Result<(), NetworkError> {
        let input = self.network.input;
        let expected = [input.channels, input.height, input.width].map(|length| length as i64);
        let found = images.size();
        if found.len() == 4 && found[1..] == expected && images.kind() == Kind::Float {
            Ok(())
        } else {
            let expected = [
                found.first().copied().unwrap_or(0),
                expected[0],
                expected[1],
                expected[2],
            ];
            Err(NetworkError::Input {
                found,
                expected: expected.to_vec(),
            })
        }
    }
}
