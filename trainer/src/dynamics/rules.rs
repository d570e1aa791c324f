//! The two learning rules, with the authors' constants and schedules.

use std::fmt;

use super::Population;

/// α: strength of the inhibition.
pub const ALPHA: f64 = 10.0;
/// τ: the time constant of neurons and of inhibition, in steps (milliseconds).
pub const TAU: f64 = 30.0;
/// b: the neurons' drive without input.
pub const DRIVE: f64 = 1.0;
/// How many steps a patch is presented to neurons with lateral inhibition.
pub const PRESENTATION_STEPS: usize = 150;
/// Neurons with lateral inhibition settle so many steps before they learn.
const SETTLING_STEPS: usize = 50;

/// How neurons come to answer alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Stochastic gradient descent on (z − z̄)²/2 + γ/2·(w − w_init)²: as if every neuron knew the mean.
    InstantSgd,
    /// The mean comes from an inhibitory neuron, through the dynamics of rates.
    LateralInhibition,
}

impl Rule {
    /// Both.
    pub const ALL: [Self; 2] = [Self::InstantSgd, Self::LateralInhibition];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::InstantSgd => "instant-sgd",
            Self::LateralInhibition => "lateral-inhibition",
        }
    }
}

/// In words, for pictures.
impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InstantSgd => "Instant SGD",
            Self::LateralInhibition => "Lateral inhibition",
        })
    }
}

/// Neurons that learn from patches that are presented to them.
pub trait Learner {
    /// Presents a patch of K values.
    fn present(&mut self, patch: &[f64]);

    /// The neurons, with the weights as they are now.
    fn population(&self) -> &Population;
}

/// Neurons that learn by [`Rule::InstantSgd`]: m ← μ·m + η·( −(z − z̄)·x − γ·(w − w_init) ), once a presentation.
#[derive(Clone, Debug)]
pub struct InstantSgd {
    population: Population,
    gamma: f64,
    presentations: usize,
    outputs: Vec<f64>,
}

impl InstantSgd {
    /// Neurons that have seen nothing.
    pub fn new(population: Population, gamma: f64) -> Self {
        Self {
            outputs: vec![0.0; population.neurons()],
            population,
            gamma,
            presentations: 0,
        }
    }
}

impl Learner for InstantSgd {
    /// One update. η is 0.5 / (1000 + i) in the i-th presentation.
    fn present(&mut self, patch: &[f64]) {
        self.population.respond(patch, &mut self.outputs);
        let mean = self.outputs.iter().sum::<f64>() / self.outputs.len() as f64;
        for output in &mut self.outputs {
            *output -= mean;
        }
        let learning_rate = 0.5 / (1000.0 + self.presentations as f64);
        self.population
            .learn(patch, &self.outputs, learning_rate, self.gamma);
        self.presentations += 1;
    }

    fn population(&self) -> &Population {
        &self.population
    }
}

/// Neurons that learn by [`Rule::LateralInhibition`]: their rates r follow
///
/// - r ← r + (−r + z − α·r_inh + b)/τ, the neurons, inhibited by
/// - r_inh ← r_inh + (−r_inh − b + r̄)/τ, which sees their mean rate (both from the values before),
/// - m ← μ·m + η·( −(r − b)·x − γ·(w − w_init) ), w ← w + m.
///
/// Settled, r − b = z − z̄ + z̄/(1 + α): for strong inhibition the deviation from the mean.
#[derive(Clone, Debug)]
pub struct LateralInhibition {
    population: Population,
    gamma: f64,
    steps: usize,
    rates: Vec<f64>,
    inhibition: f64,
    outputs: Vec<f64>,
}

impl LateralInhibition {
    /// Silent neurons.
    pub fn new(population: Population, gamma: f64) -> Self {
        let neurons = population.neurons();
        Self {
            population,
            gamma,
            steps: 0,
            rates: vec![0.0; neurons],
            inhibition: 0.0,
            outputs: vec![0.0; neurons],
        }
    }

    /// One step. η is 0.0003 / √(1 + i/2) in the i-th step since the beginning, after the first ones, in which the
    /// rates settle.
    pub fn step(&mut self, patch: &[f64]) {
        self.population.respond(patch, &mut self.outputs);
        let mean_rate = self.rates.iter().sum::<f64>() / self.rates.len() as f64;
        for (rate, output) in self.rates.iter_mut().zip(&mut self.outputs) {
            *rate += (-*rate + *output - ALPHA * self.inhibition + DRIVE) / TAU;
            *output = *rate - DRIVE;
        }
        self.inhibition += (-self.inhibition - DRIVE + mean_rate) / TAU;
        let learning_rate = if self.steps <= SETTLING_STEPS {
            0.0
        } else {
            0.0003 / (1.0 + self.steps as f64 / 2.0).sqrt()
        };
        self.population
            .learn(patch, &self.outputs, learning_rate, self.gamma);
        self.steps += 1;
    }

    /// r of every neuron.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// r_inh.
    pub fn inhibition(&self) -> f64 {
        self.inhibition
    }
}

impl Learner for LateralInhibition {
    /// [`PRESENTATION_STEPS`] steps.
    fn present(&mut self, patch: &[f64]) {
        for _ in 0..PRESENTATION_STEPS {
            self.step(patch);
        }
    }

    fn population(&self) -> &Population {
        &self.population
    }
}
