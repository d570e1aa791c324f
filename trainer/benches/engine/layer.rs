//! One locally connected layer, forward and backward.

use model::Convolution;
use model::network::Resolution;
use tch::{Device, Kind, Tensor};
use trainer::engine::{Execution, WeightGradient, clear_gradient};
use trainer::network::locally_connected_with;
use trainer::precision::Precision;

use crate::authors;
use crate::contest::Contest;

/// A layer of 3x3 windows with as many outputs as inputs. Gradients are kept; ours go into memory that is kept as well.
pub fn layer(
    metric: String,
    (channels, size, batch): (usize, usize, i64),
    precision: Precision,
    (repetitions, device): (usize, Device),
) -> anyhow::Result<Contest> {
    let input = Resolution {
        height: size,
        width: size,
    };
    let geometry = Convolution::new("layer", true, (channels, channels), (3, 1), input)?;
    let theirs = geometry.clone();
    let (length, planes) = (size as i64, channels as i64);
    Ok(Contest {
        metric,
        baseline: "unfold and einsum",
        ours: Box::new(move || {
            let x = variable(&[length, length, batch, planes], device)?;
            let shape: Vec<i64> = geometry
                .weight_shape()
                .iter()
                .map(|&length| length as i64)
                .collect();
            let weights = variable(&shape, device)?;
            let memory = weights.detach().f_empty_like()?;
            Ok(Box::new(move || {
                clear_gradient(&weights)?;
                clear_gradient(&x)?;
                let execution = Execution {
                    gradient: WeightGradient::Kept(Some(&memory)),
                    precision,
                };
                let y = locally_connected_with(&x, &weights, None, &geometry, execution)?;
                Ok(y.position_major()?.f_sum(Kind::Float)?.f_backward()?)
            }))
        }),
        theirs: Box::new(move || {
            let x = variable(&[batch, planes, length, length], device)?;
            let weights = variable(&authors::authors_shape(&theirs), device)?;
            Ok(Box::new(move || {
                clear_gradient(&weights)?;
                clear_gradient(&x)?;
                let y = authors::locally_connected(&x, &weights, &theirs)?;
                Ok(y.f_sum(Kind::Float)?.f_backward()?)
            }))
        }),
        steps: 1,
        repetitions,
        device,
    })
}

fn variable(shape: &[i64], device: Device) -> Result<Tensor, tch::TchError> {
    Tensor::f_randn(shape, (Kind::Float, device))?.f_set_requires_grad(true)
}
