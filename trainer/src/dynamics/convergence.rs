//! How alike weights become over presentations, for sizes of the patch and values of γ, by either rule.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

use super::Population;
use super::rules::{InstantSgd, LateralInhibition, Learner, Rule};

/// What to simulate: every rule with every kernel size and every γ.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Sides k of the patches; a neuron has K = k² inputs.
    pub kernel_sizes: Vec<usize>,
    /// How strongly weights are held at their first values.
    pub gammas: Vec<f64>,
    /// Neurons that learn to share.
    pub neurons: usize,
    /// Patches that are presented, one after the other.
    pub presentations: usize,
    /// Decides weights and patches; these are the same for both rules and all γ.
    pub seed: u64,
}

/// The course of one simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// How the neurons learn.
    pub rule: Rule,
    /// k.
    pub kernel_size: usize,
    /// γ.
    pub gamma: f64,
    /// [`Population::inverse_snr`] before the first presentation and after each.
    pub inverse_snr: Vec<f64>,
}

impl Experiment {
    /// How many presentations [`Experiment::run`] simulates in all.
    pub fn total_presentations(&self) -> usize {
        Rule::ALL.len() * self.kernel_sizes.len() * self.gammas.len() * self.presentations
    }

    /// Simulates everything; `presented` is called after every presentation. Returns the curves ordered by rule, γ and
    /// kernel size.
    pub fn run(&self, mut presented: impl FnMut()) -> Vec<Curve> {
        let mut curves = Vec::new();
        for rule in Rule::ALL {
            for &gamma in &self.gammas {
                for &kernel_size in &self.kernel_sizes {
                    let inverse_snr = self.follow(rule, kernel_size, gamma, &mut presented);
                    curves.push(Curve {
                        rule,
                        kernel_size,
                        gamma,
                        inverse_snr,
                    });
                }
            }
        }
        curves
    }

    fn follow(&self, rule: Rule, kernel_size: usize, gamma: f64, presented: &mut impl FnMut()) -> Vec<f64> {
        let inputs = kernel_size * kernel_size;
        let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
        generator.set_stream(kernel_size as u64);
        // The authors' weights: mean and standard deviation 1.
        let weights = (0..self.neurons * inputs)
            .map(|_| 1.0 + sample(&mut generator))
            .collect();
        let population = Population::new(weights, inputs);
        let mut course = vec![population.inverse_snr()];
        let mut neurons: Box<dyn Learner> = match rule {
            Rule::InstantSgd => Box::new(InstantSgd::new(population, gamma)),
            Rule::LateralInhibition => Box::new(LateralInhibition::new(population, gamma)),
        };
        let mut patch = vec![0.0; inputs];
        for _ in 0..self.presentations {
            patch.fill_with(|| sample(&mut generator));
            neurons.present(&patch);
            course.push(neurons.population().inverse_snr());
            presented();
        }
        course
    }
}

impl Curve {
    /// What [`Rule::InstantSgd`] converges to: where learning is slow, the deviation from the mean weights shrinks to
    /// γ/(1 + γ) of what it was, as the gradient (w − w̄) + γ·(w − w_init) is zero there.
    pub fn limit(&self) -> Option<f64> {
        let first = self.inverse_snr.first()?;
        let shrunk = self.gamma / (1.0 + self.gamma);
        (self.rule == Rule::InstantSgd).then_some(first * shrunk * shrunk)
    }
}

fn sample(generator: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(generator)
}
