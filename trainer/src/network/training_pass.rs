//! A forward pass in training with the backward pass that belongs to it.
//!
//! Where activations are computed again, the backward pass goes block by block: a block's activations are there only while
//! its gradients are computed. The result is the same, bit for bit where the device's kernels are deterministic; BatchNorm's
//! running statistics take note of the batch once.

use model::network::Block;
use tch::{TchError, Tensor, no_grad};

use super::activation::Activation;
use super::pass::Pass;

/// A forward pass in training that can be differentiated, once.
pub struct TrainingPass<'a> {
    pass: Pass<'a>,
    logits: Tensor,
    /// Empty where automatic differentiation keeps everything.
    kept: Option<Kept>,
}

/// What is computed again starts from these.
struct Kept {
    images: Tensor,
    /// The inputs of all blocks, and that of the readout.
    inputs: Vec<Activation>,
}

impl<'a> TrainingPass<'a> {
    pub(super) fn run(pass: Pass<'a>, images: &Tensor, recompute: bool) -> Result<Self, TchError> {
        if !recompute {
            let logits = pass.run(images, &mut ())?;
            let kept = None;
            return Ok(Self { pass, logits, kept });
        }
        let mut inputs = vec![no_grad(|| pass.stem(images, &mut ()))?];
        for block in blocks(&pass) {
            if let Some(input) = inputs.last() {
                inputs.push(no_grad(|| pass.block(input, block, &mut ()))?);
            }
        }
        let last = inputs.pop().map(|features| features.leaf()).transpose()?;
        let last = last.ok_or_else(|| TchError::Shape("a network without a stem".into()))?;
        let logits = pass.readout(&last, &mut ())?;
        inputs.push(last);
        let images = images.shallow_clone();
        let kept = Some(Kept { images, inputs });
        Ok(Self { pass, logits, kept })
    }

    /// `[N, classes]`.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// Differentiates a loss that was computed from the logits.
    ///
    /// # Errors
    /// libtorch's.
    pub fn backward(self, loss: &Tensor) -> Result<(), TchError> {
        loss.f_backward()?;
        let Some(Kept { images, mut inputs }) = self.kept else {
            return Ok(());
        };
        let pass = Pass {
            statistics: false,
            ..self.pass
        };
        let mut gradient = match inputs.pop() {
            Some(features) => features.gradient()?,
            None => return Ok(()),
        };
        let blocks: Vec<&Block> = blocks(&pass).collect();
        for (block, input) in blocks.into_iter().zip(inputs).rev() {
            let input = input.leaf()?;
            let output = pass.block(&input, block, &mut ())?;
            output.backward(&gradient)?;
            gradient = input.gradient()?;
        }
        pass.stem(&images, &mut ())?.backward(&gradient)
    }
}

fn blocks<'a>(pass: &Pass<'a>) -> impl Iterator<Item = &'a Block> {
    pass.network.network.stages.iter().flat_map(|stage| &stage.blocks)
}
