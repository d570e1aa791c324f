//! A linear readout: logits that are sums of features, trained with AdamW.

use model::network::TensorRole;
use tch::{Device, Kind, Reduction, TchError, Tensor, no_grad};

use super::ProbeOptions;
use crate::network::TensorStore;
use crate::training::{Optimizer, OptimizerOptions};

const WEIGHT: &str = "weight";
const BIAS: &str = "bias";

/// Weights `[classes, F]` and biases `[classes]` with their optimiser.
pub(super) struct Readout {
    parameters: TensorStore,
    optimizer: Optimizer,
}

impl Readout {
    /// A readout that makes all classes equally likely: its loss has one minimum only, wherever it begins.
    pub(super) fn new(
        features: usize,
        classes: usize,
        options: &ProbeOptions,
        device: Device,
    ) -> Result<Self, TchError> {
        let zeros = |shape: &[usize]| {
            let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
            Tensor::f_zeros(shape, (Kind::Float, device))
        };
        let parameters = TensorStore::new(vec![
            (WEIGHT.into(), TensorRole::Parameter, zeros(&[classes, features])?),
            (BIAS.into(), TensorRole::Parameter, zeros(&[classes])?),
        ])?;
        let options = OptimizerOptions {
            learning_rate: options.learning_rate,
            weight_decay: options.weight_decay,
            ..OptimizerOptions::default()
        };
        let optimizer = Optimizer::new(&parameters, options)?;
        Ok(Self {
            parameters,
            optimizer,
        })
    }

    pub(super) fn set_learning_rate(&mut self, learning_rate: f64) {
        self.optimizer.set_learning_rate(learning_rate);
    }

    /// Makes a step on features `[N, F]` of classes `[N]`; the mean cross-entropy before it. A loss that isn't finite
    /// changes nothing.
    pub(super) fn step(&mut self, features: &Tensor, labels: &Tensor) -> Result<f64, TchError> {
        self.optimizer.zero_gradients()?;
        let loss = self.linear(features)?.f_cross_entropy_loss::<&Tensor>(
            labels,
            None,
            Reduction::Mean,
            -100,
            0.0,
        )?;
        let value = loss.f_double_value(&[])?;
        if value.is_finite() {
            loss.f_backward()?;
            self.optimizer.step()?;
        }
        Ok(value)
    }

    /// Logits `[N, classes]` of features `[N, F]`.
    pub(super) fn logits(&self, features: &Tensor) -> Result<Tensor, TchError> {
        no_grad(|| self.linear(features))
    }

    fn linear(&self, features: &Tensor) -> Result<Tensor, TchError> {
        features.f_linear(self.parameters.get(WEIGHT), Some(self.parameters.get(BIAS)))
    }
}
