//! How the learning rate falls in the course of training.

use std::f64::consts::PI;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the learning rate falls from epoch to epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The paper's: times 0.25 after a half and after three quarters of the epochs.
    #[default]
    Steps,
    /// Half a period of a cosine, to 0 after the last epoch (Loshchilov & Hutter 2016).
    Cosine,
    /// It stays.
    Constant,
}

impl Schedule {
    /// The epochs, counted from 0, that begin with 0.25 times the learning rate before them; `None`: it falls otherwise.
    pub fn drops(self, epochs: usize) -> Option<Vec<usize>> {
        match self {
            // Three quarters, rounded up: three times the epochs may be too large a number.
            Self::Steps => Some(vec![epochs.div_ceil(2), epochs - epochs / 4]),
            Self::Cosine => None,
            Self::Constant => Some(Vec::new()),
        }
    }

    /// What the first learning rate is multiplied by in an epoch, which is counted from 0.
    pub fn factor(self, epoch: usize, epochs: usize) -> f64 {
        match self {
            Self::Cosine => 0.5 * (1.0 + (PI * epoch as f64 / epochs.max(1) as f64).cos()),
            Self::Steps | Self::Constant => {
                let drops = self.drops(epochs).unwrap_or_default();
                let passed = drops.iter().filter(|&&drop| epoch >= drop && drop > 0).count();
                0.25_f64.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_after_a_half_and_three_quarters() {
        let factors = |epochs, of: &[usize]| -> Vec<f64> {
            of.iter()
                .map(|&epoch| Schedule::Steps.factor(epoch, epochs))
                .collect()
        };
        assert_eq!(
            factors(200, &[0, 99, 100, 149, 150, 199]),
            [1.0, 1.0, 0.25, 0.25, 0.0625, 0.0625]
        );
        assert_eq!(factors(4, &[0, 1, 2, 3]), [1.0, 1.0, 0.25, 0.0625]);
        assert_eq!(factors(1, &[0]), [1.0]);
        for epochs in 0..20_usize {
            let drops = [epochs.div_ceil(2), (3 * epochs).div_ceil(4)];
            assert_eq!(Schedule::Steps.drops(epochs), Some(drops.into()));
        }
        // As many as `--epochs` takes.
        let drops = Schedule::Steps.drops(usize::MAX);
        assert_eq!(drops, Some(vec![1 << 63, 3 << 62]));
    }

    #[test]
    fn a_cosine_falls_and_a_constant_stays() {
        let factors: Vec<f64> = (0..10).map(|epoch| Schedule::Cosine.factor(epoch, 10)).collect();
        assert_eq!(factors[0], 1.0);
        assert!((factors[5] - 0.5).abs() < 1e-12);
        assert!(factors.is_sorted_by(|left, right| left > right) && factors[9] > 0.0);
        assert_eq!(Schedule::Constant.factor(9, 10), 1.0);
    }
}
