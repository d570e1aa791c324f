//! How weights are drawn before training (see the authors' implementation and d'Ascoli et al. 2019).

use model::Network;
use model::network::TensorRole;
use tch::{Device, Kind, TchError, Tensor};

use super::store::TensorStore;

/// How locally connected weights are drawn. Convolutions are always Kaiming-normal (fan-out, ReLU): standard deviation
/// `σ = √2 / √(Cout·k²)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialisation {
    /// Every position draws its own weights with σ.
    Random,
    /// One kernel is drawn and copied to every position. With a deviation ε above 0 every position adds its own noise:
    /// `σ/√(1+ε²) · (kernel + ε · noise)`.
    Convolutional {
        /// ε; 0 gives exactly a convolution.
        deviation: f64,
    },
}

impl Initialisation {
    pub(super) fn draw(self, network: &Network, device: Device) -> Result<TensorStore, TchError> {
        let mut tensors = Vec::new();
        for unit in network.units() {
            let geometry = &unit.convolution;
            let window = geometry.kernel_size * geometry.kernel_size;
            let sigma = (2.0 / (geometry.out_channels * window) as f64).sqrt();
            let shape = dimensions(&geometry.weight_shape());
            let weights = if geometry.locally_connected {
                self.locally_connected(&shape, sigma, device)?
            } else {
                normal(&shape, sigma, device)?
            };
            tensors.push((geometry.weight_name(), TensorRole::Parameter, weights));
            for spec in unit.norm_tensors() {
                let shape = dimensions(&spec.shape);
                let one = spec.name.ends_with(".weight") || spec.name.ends_with(".running_var");
                let tensor = match spec.role {
                    TensorRole::BatchCount => Tensor::f_zeros(&shape, (Kind::Int64, device))?,
                    _ if one => Tensor::f_ones(&shape, (Kind::Float, device))?,
                    _ => Tensor::f_zeros(&shape, (Kind::Float, device))?,
                };
                tensors.push((spec.name, spec.role, tensor));
            }
        }
        // PyTorch's default for linear layers.
        let bound = 1.0 / (network.readout.features as f64).sqrt();
        let (classes, features) = (network.readout.classes as i64, network.readout.features as i64);
        for (name, shape) in [("fc.weight", vec![classes, features]), ("fc.bias", vec![classes])] {
            let mut tensor = Tensor::f_empty(&shape, (Kind::Float, device))?;
            let _ = tensor.f_uniform_(-bound, bound)?;
            tensors.push((name.to_owned(), TensorRole::Parameter, tensor));
        }
        TensorStore::new(tensors)
    }

    fn locally_connected(self, shape: &[i64], sigma: f64, device: Device) -> Result<Tensor, TchError> {
        match self {
            Self::Random => normal(shape, sigma, device),
            Self::Convolutional { deviation } => {
                let scale = sigma / (1.0 + deviation * deviation).sqrt();
                let kernel = normal(&shape[2..], scale, device)?;
                if deviation == 0.0 {
                    return kernel.f_expand(shape, false)?.f_contiguous();
                }
                let mut weights = normal(shape, scale * deviation, device)?;
                let _ = weights.f_add_(&kernel)?;
                Ok(weights)
            }
        }
    }
}

fn normal(shape: &[i64], sigma: f64, device: Device) -> Result<Tensor, TchError> {
    let mut tensor = Tensor::f_empty(shape, (Kind::Float, device))?;
    tensor.f_normal_(0.0, sigma)
}

fn dimensions(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&length| length as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::TorchNetwork;
    use model::{Architecture, Connectivity, InputShape};

    fn weights(initialisation: Initialisation) -> Tensor {
        let input = InputShape {
            channels: 3,
            height: 16,
            width: 16,
        };
        let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
        let network = Architecture::resnet_cifar(1, input, 16, 10, lc)
            .network()
            .unwrap();
        let network = TorchNetwork::initialise(network, initialisation, Device::Cpu).unwrap();
        network.store().get("layer1.0.conv1.weights").shallow_clone()
    }

    fn deviation_between_positions(weights: &Tensor) -> f64 {
        weights
            .view([256, 144 * 16])
            .std_dim(0, true, false)
            .mean(Kind::Float)
            .double_value(&[])
    }

    #[test]
    fn random_weights_have_kaiming_deviation_at_every_position() {
        let sigma = (2.0_f64 / (16.0 * 9.0)).sqrt();
        let weights = weights(Initialisation::Random);
        assert!((weights.std(true).double_value(&[]) / sigma - 1.0).abs() < 0.01);
        assert!((deviation_between_positions(&weights) / sigma - 1.0).abs() < 0.02);
    }

    #[test]
    fn convolutional_weights_are_equal_at_every_position() {
        let weights = weights(Initialisation::Convolutional { deviation: 0.0 });
        let first = weights.get(0).get(0);
        assert_eq!((&weights - &first).abs().max().double_value(&[]), 0.0);
        assert!(first.std(true).double_value(&[]) > 0.0);
    }

    #[test]
    fn a_deviation_keeps_the_total_variance() {
        let sigma = (2.0_f64 / (16.0 * 9.0)).sqrt();
        let weights = weights(Initialisation::Convolutional { deviation: 0.5 });
        assert!((weights.std(true).double_value(&[]) / sigma - 1.0).abs() < 0.05);
        let own = sigma * 0.5 / 1.25_f64.sqrt();
        assert!((deviation_between_positions(&weights) / own - 1.0).abs() < 0.02);
    }
}
