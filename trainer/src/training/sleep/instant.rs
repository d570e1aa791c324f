//! The sleep phase in its instant form: every weight becomes the mean over its class.

use tch::{TchError, Tensor, no_grad};

use super::class::classes;

/// Replaces weights `[H_out, W_out, K, Cout]` of a layer of kernel size k by their means over the classes; for k = 1
/// that is one class, all positions.
///
/// Reads the weights once and writes them once; beyond them it needs the memory of one position's.
///
/// # Errors
/// libtorch's.
pub fn share_instantly(weights: &Tensor, kernel_size: usize) -> Result<(), TchError> {
    let size = weights.size();
    no_grad(|| {
        for mut class in classes(weights, kernel_size, (0, size[0]), (0, size[1]))? {
            if class.positions() > 1 {
                let mean = class.mean()?;
                class.weights.f_copy_(&mean)?;
            }
        }
        Ok(())
    })
}
