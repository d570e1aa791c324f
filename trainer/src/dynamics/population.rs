//! Neurons that see the same inputs: their weights, and where these began.

/// The weights of n neurons for K inputs, with their momentum.
#[derive(Clone, Debug)]
pub struct Population {
    inputs: usize,
    weights: Vec<f64>,
    initial: Vec<f64>,
    momentum: Vec<f64>,
}

/// The authors' momentum μ, of either rule.
const MOMENTUM: f64 = 0.95;

impl Population {
    /// `weights` `[n, K]`, neuron by neuron, for `inputs` K; they are also what γ holds them at.
    ///
    /// # Panics
    /// Where `weights` aren't those of one neuron at least, or not of whole neurons.
    pub fn new(weights: Vec<f64>, inputs: usize) -> Self {
        assert!(
            inputs > 0 && !weights.is_empty() && weights.len().is_multiple_of(inputs),
            "{} weights don't make neurons of {inputs} inputs",
            weights.len()
        );
        Self {
            inputs,
            initial: weights.clone(),
            momentum: vec![0.0; weights.len()],
            weights,
        }
    }

    /// `[n, K]`.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// n.
    pub fn neurons(&self) -> usize {
        self.weights.len() / self.inputs
    }

    /// The inverse square of the signal-to-noise ratio: the mean over the K weights of variance over squared mean,
    /// variance (of n, not n − 1) and mean over the neurons. Zero where all neurons are alike.
    pub fn inverse_snr(&self) -> f64 {
        let neurons = self.neurons() as f64;
        let of_weight = |input: usize| {
            let weights = || self.weights.iter().skip(input).step_by(self.inputs);
            let mean = weights().sum::<f64>() / neurons;
            let variance = weights().map(|weight| (weight - mean).powi(2)).sum::<f64>() / neurons;
            variance / mean.powi(2)
        };
        (0..self.inputs).map(of_weight).sum::<f64>() / self.inputs as f64
    }

    /// z = w·x of every neuron, into `outputs`.
    pub(super) fn respond(&self, patch: &[f64], outputs: &mut [f64]) {
        for (output, weights) in outputs.iter_mut().zip(self.weights.chunks_exact(self.inputs)) {
            *output = weights.iter().zip(patch).map(|(weight, x)| weight * x).sum();
        }
    }

    /// m ← μ·m + η·( −s·x − γ·(w − w_init) ), w ← w + m, where s is each neuron's `signals` value: anti-Hebbian
    /// learning, held back by γ.
    pub(super) fn learn(&mut self, patch: &[f64], signals: &[f64], learning_rate: f64, gamma: f64) {
        let weights = self.weights.chunks_exact_mut(self.inputs);
        let initial = self.initial.chunks_exact(self.inputs);
        let momentum = self.momentum.chunks_exact_mut(self.inputs);
        for (((weights, initial), momentum), signal) in weights.zip(initial).zip(momentum).zip(signals) {
            for (((weight, initial), momentum), x) in weights.iter_mut().zip(initial).zip(momentum).zip(patch)
            {
                let update = -signal * x - gamma * (*weight - initial);
                *momentum = MOMENTUM * *momentum + learning_rate * update;
                *weight += *momentum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_snr_is_variance_over_squared_mean() {
        // Weights 1 and 3 (mean 2, variance 1), and 5 and 5.
        let population = Population::new(vec![1.0, 5.0, 3.0, 5.0], 2);
        assert_eq!(population.inverse_snr(), 0.125);
    }

    #[test]
    #[should_panic(expected = "5 weights don't make neurons of 2 inputs")]
    fn weights_of_half_a_neuron_are_refused() {
        Population::new(vec![0.0; 5], 2);
    }
}
