//! The sleep phase, in its instant form: neurons with non-overlapping receptive fields come to share their weights.
//!
//! Pogodin, Mehta, Lillicrap & Latham 2021: output positions fall in k² classes by (row mod k, column mod k); every
//! weight becomes the mean over its class.

use tch::{Kind, TchError, Tensor, no_grad};

use crate::network::TorchNetwork;

/// Shares the weights of every locally connected layer.
///
/// # Errors
/// libtorch's.
pub fn sleep(network: &TorchNetwork) -> Result<(), TchError> {
    for geometry in network
        .network()
        .convolutions()
        .filter(|geometry| geometry.locally_connected)
    {
        share_instantly(network.store().get(&geometry.weight_name()), geometry.kernel_size)?;
    }
    Ok(())
}

/// Replaces weights `[H_out, W_out, K, Cout]` of a layer of kernel size k by their means over the classes.
///
/// # Errors
/// libtorch's.
pub fn share_instantly(weights: &Tensor, kernel_size: usize) -> Result<(), TchError> {
    let (height, width) = (weights.size()[0], weights.size()[1]);
    let kernel = kernel_size as i64;
    no_grad(|| {
        for row in 0..kernel.min(height) {
            let rows = weights.f_slice(0, row, height, kernel)?;
            for column in 0..kernel.min(width) {
                let mut class = rows.f_slice(1, column, width, kernel)?;
                let mean = class.f_mean_dim([0, 1].as_slice(), true, None::<Kind>)?;
                class.f_copy_(&mean)?;
            }
        }
        Ok(())
    })
}
