//! The optimiser: AdamW (Loshchilov & Hutter 2017), Adam or stochastic gradient descent, as PyTorch defines them.

use std::collections::HashMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use crate::engine::{self, Algorithm, Step, Update, clear_gradient, optimizer_step};
use crate::network::TensorStore;

/// The type of the numbers that the optimiser remembers of every parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum MomentType {
    /// float32, as PyTorch.
    #[default]
    Fp32,
    /// bfloat16, rounded up or down at random so that means are exact: half the memory.
    Bf16,
}

impl MomentType {
    /// libtorch's name of the type.
    pub fn kind(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::Fp32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// The optimiser's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerOptions {
    /// How gradients become steps.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// The size of a step.
    pub learning_rate: f64,
    /// Fraction of every parameter: with AdamW it is taken off a step, times the learning rate; else it is added to the
    /// gradient.
    pub weight_decay: f64,
    /// Adam's: decay of the first and the second moment.
    pub betas: (f64, f64),
    /// Adam's: added to the root of the second moment.
    pub epsilon: f64,
    /// Stochastic gradient descent's: decay of the sum of past gradients.
    #[serde(default)]
    pub momentum: f64,
    /// Of what is remembered of every parameter.
    #[serde(default)]
    pub moments: MomentType,
}

impl Default for OptimizerOptions {
    /// PyTorch's AdamW; its numbers are the paper's too, but for the learning rate.
    fn default() -> Self {
        Self {
            algorithm: Algorithm::AdamW,
            learning_rate: 1e-3,
            weight_decay: 1e-2,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            momentum: 0.0,
            moments: MomentType::Fp32,
        }
    }
}

impl OptimizerOptions {
    /// What the optimiser remembers of every parameter.
    pub fn moment_names(&self) -> &'static [&'static str] {
        match self.algorithm {
            Algorithm::AdamW | Algorithm::Adam => &["first_moment", "second_moment"],
            Algorithm::Sgd if self.momentum > 0.0 => &["momentum"],
            Algorithm::Sgd => &[],
        }
    }
}

/// The optimiser: parameters with their moments.
#[derive(Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    steps: u64,
    names: Vec<String>,
    index: HashMap<String, usize>,
    parameters: Vec<Tensor>,
    moments: Vec<Moments>,
}

/// One number for every number of every parameter.
#[derive(Debug)]
struct Moments {
    name: &'static str,
    values: Vec<Tensor>,
}

impl Optimizer {
    /// An optimiser that hasn't made a step, for all parameters of a network.
    ///
    /// # Errors
    /// libtorch's, for instance where memory doesn't suffice.
    pub fn new(store: &TensorStore, options: OptimizerOptions) -> Result<Self, TchError> {
        let (names, parameters): (Vec<String>, Vec<Tensor>) = store
            .parameters()
            .map(|(name, value)| (name.to_owned(), value.shallow_clone()))
            .unzip();
        let moments = options.moment_names().iter().map(|&name| {
            let zeros =
                |value: &Tensor| Tensor::f_zeros(value.size(), (options.moments.kind(), value.device()));
            Ok(Moments {
                name,
                values: parameters.iter().map(zeros).collect::<Result<_, TchError>>()?,
            })
        });
        Ok(Self {
            options,
            steps: 0,
            moments: moments.collect::<Result<_, TchError>>()?,
            index: std::iter::zip(names.iter().cloned(), 0..).collect(),
            names,
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
    ///
    /// # Errors
    /// libtorch's.
    pub fn zero_gradients(&self) -> Result<(), TchError> {
        self.parameters.iter().try_for_each(clear_gradient)
    }

    /// What the next [`Optimizer::step`] would do to a parameter, for those whose gradient is used in the backward pass.
    ///
    /// # Panics
    /// Where the network has no parameter of that name: names come from the store that the optimiser was made for.
    pub fn update(&self, name: &str) -> Update<'_> {
        match self.index.get(name) {
            Some(&index) => self.next_update(index),
            None => panic!("the network has no parameter `{name}`"),
        }
    }

    /// Updates every parameter that has a gradient.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step(&mut self) -> Result<(), TchError> {
        match self.options.moments {
            MomentType::Fp32 => {
                let parameters: Vec<&Tensor> = self.parameters.iter().collect();
                let moments = |index: usize| -> Vec<&Tensor> {
                    self.moments
                        .get(index)
                        .map_or_else(Vec::new, |moments| moments.values.iter().collect())
                };
                optimizer_step(&parameters, &moments(0), &moments(1), &self.next_step(0))?;
            }
            // Every parameter has noise of its own.
            MomentType::Bf16 => {
                for (index, parameter) in self.parameters.iter().enumerate() {
                    let gradient = parameter.f_grad()?;
                    if gradient.defined() {
                        engine::update(parameter, &gradient, &self.next_update(index))?;
                    }
                }
            }
        }
        self.steps += 1;
        Ok(())
    }

    fn next_update(&self, index: usize) -> Update<'_> {
        let moment = |number: usize| self.moments.get(number).map(|moments| &moments.values[index]);
        Update {
            step: self.next_step(index),
            first_moment: moment(0),
            second_moment: moment(1),
        }
    }

    fn next_step(&self, index: usize) -> Step {
        let number = self.steps + 1;
        Step {
            algorithm: self.options.algorithm,
            noise: noise(number, index as u64),
            number: number as f64,
            learning_rate: self.options.learning_rate,
            weight_decay: self.options.weight_decay,
            beta1: self.options.betas.0,
            beta2: self.options.betas.1,
            epsilon: self.options.epsilon,
            momentum: self.options.momentum,
        }
    }

    /// Everything to go on from, in a fixed order: `PARAMETER.first_moment` and so on.
    pub(super) fn state(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.names.iter().enumerate().flat_map(|(index, parameter)| {
            self.moments
                .iter()
                .map(move |moments| (format!("{parameter}.{}", moments.name), &moments.values[index]))
        })
    }

    pub(super) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}

/// Bits for a parameter's rounding in a step: the same whenever the step is made, alike to no other's.
fn noise(step: u64, index: u64) -> u32 {
    // The finaliser of SplitMix64 (Steele, Lea & Flood 2014).
    let mut bits = (step << 16 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Initialisation, TorchNetwork};
    use model::{Architecture, Connectivity, InputShape};
    use tch::{Device, Kind, no_grad};

    const STEPS: i32 = 5;

    fn network() -> TorchNetwork {
        let input = InputShape {
            channels: 2,
            height: 8,
            width: 8,
        };
        let lc = Connectivity::LocallyConnected { n_first_conv: 1 };
        let network = Architecture::resnet_cifar(1, input, 4, 3, lc).network().unwrap();
        TorchNetwork::initialise(network, Initialisation::Random, Device::Cpu).unwrap()
    }

    /// One step of PyTorch's definition in f64: the parameter, then the moments.
    fn defined(options: &OptimizerOptions, step: i32, gradient: &Tensor, state: &mut [Tensor; 3]) {
        let [value, first, second] = state;
        let decay = options.weight_decay;
        let mut gradient = gradient.to_kind(Kind::Double);
        match options.algorithm {
            Algorithm::AdamW => *value = &*value * (1.0 - options.learning_rate * decay),
            Algorithm::Adam | Algorithm::Sgd => gradient += &*value * decay,
        }
        if options.algorithm == Algorithm::Sgd {
            *first = &*first * options.momentum + gradient;
            *value = &*value - &*first * options.learning_rate;
            return;
        }
        let (beta1, beta2) = options.betas;
        *first = &*first * beta1 + &gradient * (1.0 - beta1);
        *second = &*second * beta2 + gradient.square() * (1.0 - beta2);
        let (mean, square) = (
            &*first / (1.0 - beta1.powi(step)),
            &*second / (1.0 - beta2.powi(step)),
        );
        *value = &*value - mean / (square.sqrt() + options.epsilon) * options.learning_rate;
    }

    fn follows_its_definition(options: OptimizerOptions) {
        tch::manual_seed(3);
        let network = network();
        let mut optimizer = Optimizer::new(network.store(), options).unwrap();
        let names: Vec<String> = network
            .store()
            .parameters()
            .map(|(name, _)| name.into())
            .collect();
        let value = |name: &str| network.store().get(name).detach().to_kind(Kind::Double);
        let mut expected: Vec<[Tensor; 3]> = names
            .iter()
            .map(|name| [value(name), value(name).zeros_like(), value(name).zeros_like()])
            .collect();
        for step in 1..=STEPS {
            optimizer.zero_gradients().unwrap();
            for (name, state) in names.iter().zip(&mut expected) {
                let parameter = network.store().get(name);
                assert!(!parameter.grad().defined());
                let gradient = parameter.detach().randn_like();
                (parameter * &gradient).sum(Kind::Float).backward();
                defined(&options, step, &gradient, state);
            }
            optimizer.step().unwrap();
        }
        assert_eq!(optimizer.steps(), STEPS as u64);
        // Five steps, each off by the rounding of its moments.
        let tolerance = match options.moments {
            MomentType::Fp32 => 1e-6,
            MomentType::Bf16 => 20.0 * options.learning_rate * 2.0_f64.powi(-7),
        };
        for (name, [expected, ..]) in names.iter().zip(&expected) {
            let error = no_grad(|| (value(name) - expected).abs().max()).double_value(&[]);
            let largest = expected.abs().max().double_value(&[]);
            assert!(
                error < tolerance * largest.max(1.0),
                "{options:?}: {name} differs by {error:e}"
            );
        }
    }

    #[test]
    fn every_algorithm_follows_its_definition() {
        for (algorithm, momentum) in [
            (Algorithm::AdamW, 0.0),
            (Algorithm::Adam, 0.0),
            (Algorithm::Sgd, 0.0),
            (Algorithm::Sgd, 0.9),
        ] {
            for moments in [MomentType::Fp32, MomentType::Bf16] {
                follows_its_definition(OptimizerOptions {
                    algorithm,
                    momentum,
                    moments,
                    learning_rate: 1e-2,
                    weight_decay: 0.1,
                    // Where weight decay cancels a gradient, Adam makes a step of the rounding.
                    epsilon: if algorithm == Algorithm::Adam { 1e-5 } else { 1e-8 },
                    ..OptimizerOptions::default()
                });
            }
        }
    }

    #[test]
    fn a_parameter_without_a_gradient_stays() {
        let network = network();
        let mut optimizer = Optimizer::new(network.store(), OptimizerOptions::default()).unwrap();
        let before = network.store().get("fc.weight").detach().copy();
        optimizer.step().unwrap();
        assert!(before.equal(network.store().get("fc.weight")));
    }

    #[test]
    fn moments_of_another_shape_are_refused() {
        let parameter = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        parameter.sum(Kind::Float).backward();
        let moment = Tensor::zeros([6], (Kind::Float, Device::Cpu));
        let step = Step {
            algorithm: Algorithm::AdamW,
            noise: 0,
            number: 1.0,
            learning_rate: 1.0,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum: 0.0,
        };
        let error = optimizer_step(&[&parameter], &[&moment], &[&moment], &step).unwrap_err();
        assert!(error.to_string().contains("first moment"), "{error}");
        let moments = [&moment, &moment];
        let error = optimizer_step(&[&parameter], &moments, &moments, &step).unwrap_err();
        assert!(
            error.to_string().contains("1 parameters have 2 moments"),
            "{error}"
        );
    }
}
