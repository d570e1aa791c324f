//! Neurons that come to share weights, against the authors' implementation, in double precision.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use serde::Deserialize;
use support::Golden;
use trainer::dynamics::Population;
use trainer::dynamics::convergence::{Curve, Experiment};
use trainer::dynamics::rules::{
    ALPHA, DRIVE, InstantSgd, LateralInhibition, Learner, PRESENTATION_STEPS, Rule, TAU,
};

#[derive(Deserialize)]
struct Description {
    instant: Run,
    dynamic: Run,
}

#[derive(Deserialize)]
struct Run {
    n_neurons: usize,
    kernel_size: usize,
    gamma: f64,
    steps: usize,
    weights_recorded_after_steps: Vec<usize>,
    alpha: Option<f64>,
    tau: Option<f64>,
    b: Option<f64>,
    presentation_steps: Option<usize>,
}

fn description() -> Description {
    serde_json::from_str(&support::text("sleep_dynamics.json")).unwrap()
}

/// A recorded tensor's values.
fn values(golden: &Golden, name: &str) -> Vec<f64> {
    Vec::try_from(golden.tensor(name).flatten(0, -1)).unwrap()
}

/// The largest difference, as a fraction of the largest magnitude.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let difference = found
        .iter()
        .zip(expected)
        .fold(0.0_f64, |worst, (found, expected)| {
            worst.max((found - expected).abs())
        });
    difference / largest
}

/// Compares what the recorded steps have, and the SNR of every step.
struct Comparison<'a> {
    golden: &'a Golden,
    prefix: &'static str,
    run: &'a Run,
    snr: Vec<f64>,
    worst: f64,
}

impl<'a> Comparison<'a> {
    fn new(golden: &'a Golden, prefix: &'static str, run: &'a Run, population: &Population) -> Self {
        Self {
            golden,
            prefix,
            run,
            snr: vec![population.inverse_snr()],
            worst: 0.0,
        }
    }

    fn after(&mut self, step: usize, population: &Population, others: &[(&str, &[f64])]) {
        self.snr.push(population.inverse_snr());
        let recorded = &self.run.weights_recorded_after_steps;
        let Some(index) = recorded.iter().position(|&recorded| recorded == step) else {
            return;
        };
        for &(name, found) in [("weights", population.weights())].iter().chain(others) {
            let all = values(self.golden, &format!("{}.{name}", self.prefix));
            let size = all.len() / recorded.len();
            let expected = &all[index * size..(index + 1) * size];
            let error = error(found, expected);
            assert!(error < 1e-13, "step {step}: {name} differs by {error:e}");
            self.worst = self.worst.max(error);
        }
    }

    /// The worst error.
    fn finish(self) -> f64 {
        let error = error(&self.snr, &values(self.golden, &format!("{}.snr", self.prefix)));
        assert!(error < 1e-13, "the SNR differs by {error:e}");
        self.worst.max(error)
    }
}

fn population(golden: &Golden, prefix: &str, run: &Run) -> Population {
    let inputs = run.kernel_size * run.kernel_size;
    let population = Population::new(values(golden, &format!("{prefix}.weights_init")), inputs);
    assert_eq!(population.neurons(), run.n_neurons);
    population
}

#[test]
fn instant_sgd_is_the_authors() {
    let golden = Golden::open("sleep_dynamics.safetensors");
    let run = description().instant;
    let population = population(&golden, "instant", &run);
    let mut comparison = Comparison::new(&golden, "instant", &run, &population);
    let patches = values(&golden, "instant.x");
    let mut neurons = InstantSgd::new(population, run.gamma);
    let patches = patches.chunks_exact(run.kernel_size * run.kernel_size);
    assert_eq!(patches.len(), run.steps);
    for (index, patch) in patches.enumerate() {
        neurons.present(patch);
        comparison.after(index + 1, neurons.population(), &[]);
    }
    println!("worst relative error: {:e}", comparison.finish());
}

#[test]
fn lateral_inhibition_is_the_authors() {
    let golden = Golden::open("sleep_dynamics.safetensors");
    let run = description().dynamic;
    assert_eq!(
        (run.alpha, run.tau, run.b, run.presentation_steps),
        (Some(ALPHA), Some(TAU), Some(DRIVE), Some(PRESENTATION_STEPS))
    );
    let population = population(&golden, "dynamic", &run);
    let mut comparison = Comparison::new(&golden, "dynamic", &run, &population);
    let patches = values(&golden, "dynamic.x");
    let inputs = run.kernel_size * run.kernel_size;
    let mut neurons = LateralInhibition::new(population, run.gamma);
    for step in 0..run.steps {
        let presentation = step / PRESENTATION_STEPS;
        neurons.step(&patches[presentation * inputs..(presentation + 1) * inputs]);
        let others = [("r", neurons.rates()), ("r_inh", &[neurons.inhibition()])];
        comparison.after(step + 1, neurons.population(), &others);
    }
    println!("worst relative error: {:e}", comparison.finish());
}

fn experiment(seed: u64) -> Experiment {
    Experiment {
        kernel_sizes: vec![3],
        gammas: vec![1e-1, 1e-2],
        neurons: 10,
        presentations: 1000,
        seed,
    }
}

#[test]
fn the_seed_decides_an_experiment() {
    let presentations = 20;
    let run = |seed| {
        let mut presented = 0;
        let experiment = Experiment {
            presentations,
            ..experiment(seed)
        };
        let curves = experiment.run(|| presented += 1);
        assert_eq!(presented, experiment.total_presentations());
        curves
    };
    let curves = run(1);
    assert_eq!(curves, run(1));
    assert_ne!(curves, run(2));
    assert_eq!(curves.len(), 4);
    for curve in &curves {
        assert_eq!(curve.inverse_snr.len(), presentations + 1);
        assert_eq!(
            curve.inverse_snr[0], curves[0].inverse_snr[0],
            "the same weights begin every curve"
        );
    }
}

#[test]
fn both_rules_make_weights_alike_and_gamma_holds_them_apart() {
    let curves = experiment(1).run(|| ());
    let last = |curve: &Curve| *curve.inverse_snr.last().unwrap();
    for curve in &curves {
        assert!(
            last(curve) < 0.1 * curve.inverse_snr[0],
            "{:?} γ {}",
            curve.rule,
            curve.gamma
        );
        if let Some(limit) = curve.limit() {
            assert!(last(curve) > limit);
        }
    }
    for rule in Rule::ALL {
        let of_rule: Vec<_> = curves.iter().filter(|curve| curve.rule == rule).collect();
        assert!(last(of_rule[0]) > last(of_rule[1]), "{rule:?}");
    }
    let strong = &curves[0];
    assert!(last(strong) < 2.0 * strong.limit().unwrap());
}
