//! One training step: forward, backward and update, in the memory of the weights.
//!
//! A locally connected layer's weights are updated in the backward pass, as soon as their gradient is computed: by then
//! nothing needs the old weights any more. So the gradients of a network never exist together, and the result is that of
//! the ordinary step. Where a batch is computed in parts, the gradients of all but the last are added up in memory of the
//! weights' size. Under float16 they all are, since a step that overflows must not be made.

use model::network::ConvolutionUnit;
use tch::{TchError, Tensor, no_grad};

use super::evaluation::Tally;
use super::{Evaluation, LossScale, Optimizer, TrainingError};
use crate::engine::{self, WeightGradient, unscale};
use crate::network::{LayerGradients, TorchNetwork};

/// How steps are made.
#[derive(Clone, Copy)]
pub struct TrainingStep<'a> {
    /// Trained in place.
    pub network: &'a TorchNetwork,
    /// Activations are computed again in the backward pass instead of being kept.
    pub recompute: bool,
}

/// What becomes of the gradients of one part of a batch.
struct Part<'a> {
    network: &'a TorchNetwork,
    optimizer: &'a Optimizer,
    /// Gradients of earlier parts are in memory.
    first: bool,
    /// The step is made with this part.
    applied: bool,
}

impl LayerGradients for Part<'_> {
    fn gradient(&self, weights: &str) -> Result<WeightGradient<'_>, TchError> {
        let memory = || self.network.store().gradient_memory(weights);
        if self.applied {
            let stored = if self.first { None } else { Some(memory()?) };
            let update = self.optimizer.update(weights);
            return Ok(WeightGradient::Applied { update, stored });
        }
        Ok(WeightGradient::Stored {
            memory: memory()?,
            add: !self.first,
        })
    }
}

impl TrainingStep<'_> {
    /// Makes a step with the mean cross-entropy of a batch, and returns how well the batch was classified before the step. A
    /// loss that is not finite is returned at once, with all weights as they were.
    ///
    /// `parts` are the batch's images `[N, C, H, W]` with their classes `[N]`: BatchNorm's statistics are those of a part.
    /// `images` is the number of them all. With `scale`, a step whose gradients overflow isn't made.
    ///
    /// # Errors
    /// [`TrainingError`] where a part can't be had or libtorch refuses.
    pub fn run(
        &self,
        parts: impl ExactSizeIterator<Item = Result<(Tensor, Tensor), TrainingError>>,
        images: usize,
        optimizer: &mut Optimizer,
        mut scale: Option<&mut LossScale>,
    ) -> Result<Evaluation, TrainingError> {
        let (count, factor) = (parts.len(), scale.as_deref().map_or(1.0, LossScale::factor));
        optimizer.zero_gradients()?;
        let (mut loss_so_far, mut tally) = (0.0, Tally::default());
        let classified = |tally: Tally, loss| Evaluation {
            loss,
            ..tally.evaluation()
        };
        for (index, part) in parts.enumerate() {
            let (inputs, labels) = part?;
            let share = inputs.size()[0] as f64 / images as f64;
            let gradients = Part {
                network: self.network,
                optimizer,
                first: index == 0,
                applied: scale.is_none() && index + 1 == count,
            };
            let pass = self.network.training_pass(&inputs, &gradients, self.recompute)?;
            let loss = pass.logits().f_cross_entropy_loss::<&Tensor>(
                &labels,
                None,
                tch::Reduction::Mean,
                -100,
                0.0,
            )?;
            loss_so_far += loss.f_double_value(&[])? * share;
            no_grad(|| tally.add_hits(pass.logits(), &labels))?;
            if !loss_so_far.is_finite() {
                return Ok(classified(tally, loss_so_far));
            }
            pass.backward(&loss.f_mul_scalar(share * factor)?)?;
        }
        match &mut scale {
            Some(scale) => {
                let finite = self.apply_scaled(optimizer, 1.0 / factor)?;
                scale.update(finite);
            }
            None => optimizer.step()?,
        }
        Ok(classified(tally, loss_so_far))
    }

    /// Makes the step with scaled gradients, all of which are in memory. False where one of them overflowed: then nothing
    /// is changed.
    fn apply_scaled(&self, optimizer: &mut Optimizer, factor: f64) -> Result<bool, TrainingError> {
        let store = self.network.store();
        let layers: Vec<String> = self
            .network
            .network()
            .units()
            .filter(|unit| unit.convolution.locally_connected)
            .map(|ConvolutionUnit { convolution, .. }| convolution.weight_name())
            .collect();
        let mut gradients = Vec::new();
        for layer in &layers {
            gradients.push(store.gradient_memory(layer)?.shallow_clone());
        }
        for (_, parameter) in store.parameters() {
            let gradient = parameter.f_grad()?;
            if gradient.defined() {
                gradients.push(gradient);
            }
        }
        let finite = unscale(&gradients.iter().collect::<Vec<_>>(), factor)?;
        if finite {
            no_grad(|| {
                layers.iter().zip(&gradients).try_for_each(|(layer, gradient)| {
                    engine::update(store.get(layer), gradient, &optimizer.update(layer))
                })
            })?;
            optimizer.step()?;
        }
        Ok(finite)
    }
}
