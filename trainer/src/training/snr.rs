//! The signal-to-noise ratio of weights: how alike the kernels of one layer's positions are.

use std::collections::BTreeMap;

use model::Convolution;
use tch::{Kind, TchError, Tensor, no_grad};

use crate::network::TorchNetwork;

/// The SNR of every locally connected layer by name.
///
/// # Errors
/// libtorch's.
pub fn weight_snr(network: &TorchNetwork) -> Result<BTreeMap<String, f64>, TchError> {
    let layers = network
        .network()
        .convolutions()
        .filter(|geometry| geometry.locally_connected);
    layers
        .map(|geometry| {
            let snr = layer_snr(network.store().get(&geometry.weight_name()), geometry)?;
            Ok((geometry.name.clone(), snr))
        })
        .collect()
}

/// Mean over the kernel's weights of |mean over positions| / (unbiased standard deviation over positions). Positions
/// whose receptive field touches the padding are left out. Infinite or not a number where fewer than two are left or
/// all are equal.
///
/// # Errors
/// libtorch's.
pub fn layer_snr(weights: &Tensor, geometry: &Convolution) -> Result<f64, TchError> {
    let rows = interior(geometry.input.height, geometry.output.height, geometry);
    let columns = interior(geometry.input.width, geometry.output.width, geometry);
    no_grad(|| {
        let inside = weights
            .f_slice(0, rows.0, rows.1, 1)?
            .f_slice(1, columns.0, columns.1, 1)?;
        let kernels = inside.f_reshape([-1, weights.size()[2] * weights.size()[3]])?;
        let mean = kernels.f_mean_dim([0].as_slice(), false, None::<Kind>)?.f_abs()?;
        let deviation = kernels.f_std_dim([0].as_slice(), true, false)?;
        mean.f_div(&deviation)?.f_mean(Kind::Float)?.f_double_value(&[])
    })
}

/// The range of output positions, in one direction, whose receptive field lies inside the input.
pub fn interior(input: usize, output: usize, geometry: &Convolution) -> (i64, i64) {
    let Convolution {
        kernel_size,
        stride,
        padding,
        ..
    } = *geometry;
    let inside =
        |position: &usize| position * stride >= padding && position * stride + kernel_size <= input + padding;
    let first = (0..output).find(inside).unwrap_or(output);
    let count = (first..output).take_while(inside).count();
    (first as i64, (first + count) as i64)
}
