//! AdamW alone, and on the way of a backward pass.

use anyhow::Result;
use model::Convolution;
use model::network::Resolution;
use tch::nn::{self, OptimizerConfig as _};
use tch::{Device, Kind, TchError, Tensor};
use trainer::engine::{Algorithm, Execution, Step, Update, WeightGradient, clear_gradient, update};
use trainer::network::locally_connected_with;
use trainer::precision::Precision;
use trainer::training::{MomentType, OptimizerOptions};

use crate::authors;
use crate::contest::{Contest, Preparation};

/// Those of the largest layer of ResNet-18.
const WEIGHTS: i64 = 56 * 56 * 9 * 64 * 64;

/// AdamW on the weights of the largest layer of ResNet-18, whose gradients are in memory.
pub fn adamw_step(metric: String, moments: MomentType, (repetitions, device): (usize, Device)) -> Contest {
    Contest {
        metric,
        baseline: "tch's AdamW",
        ours: Box::new(move || {
            let weights = Tensor::f_randn([WEIGHTS], (Kind::Float, device))?;
            let gradient = weights.f_ones_like()?;
            let (first, second) = (zeros(&weights, moments)?, zeros(&weights, moments)?);
            let mut number = 0;
            Ok(Box::new(move || {
                number += 1;
                Ok(update(&weights, &gradient, &adamw(number, &first, &second))?)
            }))
        }),
        theirs: tch_adamw(device),
        steps: 1,
        repetitions,
        device,
    }
}

fn tch_adamw(device: Device) -> Preparation {
    Box::new(move || {
        let variables = nn::VarStore::new(device);
        let init = nn::Init::Randn {
            mean: 0.0,
            stdev: 1.0,
        };
        let variable = variables.root().f_var("weights", &[WEIGHTS], init)?;
        variable.f_sum(Kind::Float)?.f_backward()?;
        let mut optimizer = tch_optimizer(&variables)?;
        Ok(Box::new(move || {
            // The optimiser has a reference of its own.
            let _ = &variables;
            optimizer.step();
            Ok(())
        }))
    })
}

/// The largest layer of ResNet-18 forward, backward and updated: its gradient need not be in memory.
pub fn layer_step(
    metric: String,
    batch: i64,
    moments: MomentType,
    precision: Precision,
    (repetitions, device): (usize, Device),
) -> Result<Contest> {
    let input = Resolution {
        height: 56,
        width: 56,
    };
    let geometry = Convolution::new("layer", true, (64, 64), (3, 1), input)?;
    let theirs = geometry.clone();
    Ok(Contest {
        metric,
        baseline: "unfold and einsum, tch's AdamW",
        ours: Box::new(move || {
            let x = Tensor::f_randn([56, 56, batch, 64], (Kind::Float, device))?.f_set_requires_grad(true)?;
            let weights =
                Tensor::f_randn([56, 56, 576, 64], (Kind::Float, device))?.f_set_requires_grad(true)?;
            let (first, second) = (zeros(&weights, moments)?, zeros(&weights, moments)?);
            let mut number = 0;
            Ok(Box::new(move || {
                number += 1;
                clear_gradient(&x)?;
                let gradient = WeightGradient::Applied {
                    update: adamw(number, &first, &second),
                    stored: None,
                };
                let execution = Execution { gradient, precision };
                let y = locally_connected_with(&x, &weights, None, &geometry, execution)?;
                Ok(y.position_major()?.f_sum(Kind::Float)?.f_backward()?)
            }))
        }),
        theirs: Box::new(move || {
            let variables = nn::VarStore::new(device);
            let init = nn::Init::Randn {
                mean: 0.0,
                stdev: 1.0,
            };
            let shape = authors::authors_shape(&theirs);
            let weights = variables.root().f_var("weights", &shape, init)?;
            let x = Tensor::f_randn([batch, 64, 56, 56], (Kind::Float, device))?.f_set_requires_grad(true)?;
            let mut optimizer = tch_optimizer(&variables)?;
            Ok(Box::new(move || {
                let _ = &variables;
                clear_gradient(&x)?;
                optimizer.zero_grad();
                let y = authors::locally_connected(&x, &weights, &theirs)?;
                y.f_sum(Kind::Float)?.f_backward()?;
                optimizer.step();
                Ok(())
            }))
        }),
        steps: 1,
        repetitions,
        device,
    })
}

fn zeros(weights: &Tensor, moments: MomentType) -> Result<Tensor, TchError> {
    Tensor::f_zeros(weights.size(), (moments.kind(), weights.device()))
}

/// tch's AdamW with the trainer's defaults.
pub fn tch_optimizer(variables: &nn::VarStore) -> Result<nn::Optimizer, TchError> {
    let options = OptimizerOptions::default();
    let config = nn::AdamW {
        beta1: options.betas.0,
        beta2: options.betas.1,
        wd: options.weight_decay,
        eps: options.epsilon,
        amsgrad: false,
    };
    config.build(variables, options.learning_rate)
}

fn adamw<'a>(number: u32, first: &'a Tensor, second: &'a Tensor) -> Update<'a> {
    let options = OptimizerOptions::default();
    Update {
        step: Step {
            algorithm: Algorithm::AdamW,
            noise: number,
            number: f64::from(number),
            learning_rate: options.learning_rate,
            weight_decay: options.weight_decay,
            beta1: options.betas.0,
            beta2: options.betas.1,
            epsilon: options.epsilon,
            momentum: 0.0,
        },
        first_moment: Some(first),
        second_moment: Some(second),
    }
}
