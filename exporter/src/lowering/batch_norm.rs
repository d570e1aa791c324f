//! BatchNorm in evaluation mode as what it is there: a scale and a shift per channel.

use model::checkpoint::f32_values;
use model::{Checkpoint, ConvolutionUnit};

use crate::error::ExportError;

/// PyTorch's default, which every network has.
const EPSILON: f64 = 1e-5;

/// `y = scale · x + shift`, one of each per channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BatchNorm {
    /// γ / √(variance + ε).
    pub(super) scale: Vec<f64>,
    /// β − mean · scale.
    pub(super) shift: Vec<f64>,
}

impl BatchNorm {
    /// That of a unit.
    pub(super) fn read(checkpoint: &Checkpoint, unit: &ConvolutionUnit) -> Result<Self, ExportError> {
        let values = |suffix: &str| -> Result<Vec<f64>, ExportError> {
            let tensor = checkpoint.tensor(&format!("{}.{suffix}", unit.norm))?;
            Ok(f32_values(tensor.bytes).map(f64::from).collect())
        };
        let (mean, variance) = (values("running_mean")?, values("running_var")?);
        Self::new(
            &unit.norm,
            (&values("weight")?, &values("bias")?),
            (&mean, &variance),
        )
    }

    fn new(
        norm: &str,
        (gamma, beta): (&[f64], &[f64]),
        (mean, variance): (&[f64], &[f64]),
    ) -> Result<Self, ExportError> {
        let mut result = Self {
            scale: Vec::with_capacity(gamma.len()),
            shift: Vec::with_capacity(gamma.len()),
        };
        let statistics = mean.iter().zip(variance);
        for (channel, ((gamma, beta), (mean, &variance))) in
            gamma.iter().zip(beta).zip(statistics).enumerate()
        {
            let scale = gamma / (variance + EPSILON).sqrt();
            let shift = beta - mean * scale;
            if !scale.is_finite() || !shift.is_finite() {
                return Err(ExportError::BatchNorm {
                    norm: norm.into(),
                    channel,
                    scale,
                    shift,
                    variance,
                });
            }
            result.scale.push(scale);
            result.shift.push(shift);
        }
        Ok(result)
    }
}

/// As stored in a graph.
pub(super) fn single_precision(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_and_shift_are_those_of_the_formula() {
        let norm = BatchNorm::new("bn1", (&[3.0], &[1.0]), (&[2.0], &[4.0 - EPSILON])).unwrap();
        assert_eq!(norm.scale, [1.5]);
        assert_eq!(norm.shift, [-2.0]);
    }

    #[test]
    fn a_variance_that_is_none_is_refused_by_channel() {
        let error =
            BatchNorm::new("bn1", (&[1.0, 1.0], &[0.0, 0.0]), (&[0.0, 0.0], &[1.0, -1.0])).unwrap_err();
        assert!(
            matches!(error, ExportError::BatchNorm { channel: 1, .. }),
            "{error}"
        );
        let diverged = BatchNorm::new("bn1", (&[1.0], &[0.0]), (&[f64::NAN], &[1.0]));
        assert!(matches!(diverged, Err(ExportError::BatchNorm { channel: 0, .. })));
    }
}
