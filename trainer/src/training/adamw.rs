//! AdamW (Loshchilov & Hutter 2017), in PyTorch's order of operations.

use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor, no_grad};

use crate::network::TensorStore;

/// AdamW's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamWOptions {
    /// The size of a step.
    pub learning_rate: f64,
    /// Fraction of every parameter that is taken off a step, times the learning rate.
    pub weight_decay: f64,
    /// Decay of the first and the second moment.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Default for AdamWOptions {
    /// PyTorch's; they are the paper's too, but for the learning rate.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            weight_decay: 1e-2,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
        }
    }
}

/// The optimiser: parameters with their moments.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    steps: u64,
    parameters: Vec<Parameter>,
}

/// A trained tensor with its moments.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) value: Tensor,
    pub(super) first_moment: Tensor,
    pub(super) second_moment: Tensor,
}

impl AdamW {
    /// An optimiser that hasn't made a step, for all parameters of a network.
    ///
    /// # Errors
    /// libtorch's, for instance where memory doesn't suffice.
    pub fn new(store: &TensorStore, options: AdamWOptions) -> Result<Self, TchError> {
        let parameters = store
            .parameters()
            .map(|(name, value)| {
                Ok(Parameter {
                    name: name.into(),
                    value: value.shallow_clone(),
                    first_moment: value.f_zeros_like()?,
                    second_moment: value.f_zeros_like()?,
                })
            })
            .collect::<Result<_, TchError>>()?;
        Ok(Self {
            options,
            steps: 0,
            parameters,
        })
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Changes the learning rate of the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.options.learning_rate = learning_rate;
    }

    /// Forgets the gradients of the last backward pass.
    pub fn zero_gradients(&mut self) {
        for parameter in &mut self.parameters {
            parameter.value.zero_grad();
        }
    }

    /// Updates every parameter from its gradient.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step(&mut self) -> Result<(), TchError> {
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (beta1, beta2) = self.options.betas;
        let correction = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        no_grad(|| {
            self.parameters
                .iter_mut()
                .try_for_each(|p| p.update(&self.options, correction))
        })
    }

    pub(super) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    pub(super) fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    pub(super) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}

impl Parameter {
    fn update(&mut self, options: &AdamWOptions, correction: (f64, f64)) -> Result<(), TchError> {
        let gradient = self.value.grad();
        if !gradient.defined() {
            return Ok(());
        }
        let (beta1, beta2) = options.betas;
        let _ = self
            .value
            .f_mul_scalar_(1.0 - options.learning_rate * options.weight_decay)?;
        let _ = self.first_moment.f_lerp_(&gradient, 1.0 - beta1)?;
        let _ = self.second_moment.f_mul_scalar_(beta2)?;
        let squared = gradient.f_square()?.f_mul_scalar_(1.0 - beta2)?;
        let _ = self.second_moment.f_add_(&squared)?;
        let mut denominator = self.second_moment.f_sqrt()?;
        let _ = denominator
            .f_div_scalar_(correction.1.sqrt())?
            .f_add_scalar_(options.epsilon)?;
        let mut change = self.first_moment.f_div(&denominator)?;
        let _ = change.f_mul_scalar_(options.learning_rate / correction.0)?;
        let _ = self.value.f_sub_(&change)?;
        Ok(())
    }
}
