//! A [`model::Network`] with weights in it, computed by libtorch.

mod activation;
mod convolution;
mod initialisation;
mod layer;
mod pass;
mod store;
mod training_pass;

pub use activation::{Activation, Layout};
pub use convolution::{convolution, locally_connected, locally_connected_with};
pub use initialisation::Initialisation;
pub use pass::LayerGradients;
pub use store::{StoredTensor, TensorStore};
pub use training_pass::TrainingPass;

use std::borrow::Cow;

use model::{Checkpoint, CheckpointError, Network};
use tch::{Device, Kind, TchError, Tensor};
use thiserror::Error;

use crate::precision::Precision;
use pass::Pass;

/// Why a network can't be built or computed.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
    /// A tensor is not in the checkpoint, or not as it should be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No layer of that name.
    #[error("the network has no layer `{name}`; its layers are {}", layers.join(", "))]
    NoLayer {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        layers: Vec<String>,
    },
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
    training_precision: Precision,
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
        Ok(Self::new(network, store))
    }

    /// The network of a checkpoint.
    ///
    /// # Errors
    /// [`NetworkError`] where a tensor can't be read or memory doesn't suffice.
    pub fn load(checkpoint: &Checkpoint, device: Device) -> Result<Self, NetworkError> {
        Self::from_tensors(checkpoint.network().clone(), device, |name| {
            Ok(Cow::Borrowed(checkpoint.tensor(name)?.bytes))
        })
    }

    /// A network of tensors whose elements `bytes` gives by name: little-endian, row-major, of the type and shape that the
    /// network says.
    ///
    /// # Errors
    /// [`NetworkError`] where a tensor can't be had or memory doesn't suffice.
    pub fn from_tensors<'a>(
        network: Network,
        device: Device,
        bytes: impl Fn(&str) -> Result<Cow<'a, [u8]>, CheckpointError>,
    ) -> Result<Self, NetworkError> {
        let store = TensorStore::load(&network, device, bytes)?;
        Ok(Self::new(network, store))
    }

    fn new(network: Network, store: TensorStore) -> Self {
        Self {
            network,
            store,
            training_precision: Precision::Fp32,
        }
    }

    /// The same network, whose products have this precision in [`Mode::Training`]. Evaluation is float32 always.
    #[must_use]
    pub fn with_training_precision(self, training_precision: Precision) -> Self {
        Self {
            training_precision,
            ..self
        }
    }

    fn precision(&self, mode: Mode) -> Precision {
        match mode {
            Mode::Training => self.training_precision,
            Mode::Evaluation => Precision::Fp32,
        }
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
        let pass = Pass {
            network: self,
            mode,
            gradients: &self.store,
            statistics: true,
        };
        Ok(pass.run(images, observer)?)
    }

    /// A forward pass in training that can be differentiated, as [`TorchNetwork::forward`] with [`Mode::Training`].
    /// `gradients` says what becomes of those of locally connected layers. With `recompute`, only the inputs of the
    /// network's blocks are kept; what lies between them is computed again in the backward pass, block by block.
    ///
    /// # Errors
    /// As [`TorchNetwork::forward`].
    pub fn training_pass<'a>(
        &'a self,
        images: &Tensor,
        gradients: &'a dyn LayerGradients,
        recompute: bool,
    ) -> Result<TrainingPass<'a>, NetworkError> {
        self.check_input(images)?;
        let pass = Pass {
            network: self,
            mode: Mode::Training,
            gradients,
            statistics: true,
        };
        Ok(TrainingPass::run(pass, images, recompute)?)
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
