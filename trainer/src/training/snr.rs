//! The signal-to-noise ratio of weights: how alike the kernels of one layer's positions are.

use std::collections::BTreeMap;

use model::Convolution;
use tch::{Device, Kind, TchError, Tensor, no_grad};

use super::sleep::mean_over_positions;
use crate::network::TorchNetwork;

/// Weights that are taken at a time: few enough for the processor's caches, enough to be worth its threads.
const CHUNK: i64 = 1 << 19;

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
        let (height, width) = (rows.1 - rows.0, columns.1 - columns.0);
        if height == 0 || width == 0 {
            return Ok(f64::NAN);
        }
        let mean = mean_over_positions(&inside)?;
        let deviation = deviation_over_positions(&inside, &mean)?;
        mean.f_abs()?
            .f_div(&deviation)?
            .f_mean(None::<Kind>)?
            .f_double_value(&[])
    })
}

/// The unbiased standard deviation over the positions of weights `[R, C, K, Cout]` with the mean `[K, Cout]`: `[K, Cout]`.
///
/// libtorch's own over two outer dimensions takes ten times as long on a CPU.
fn deviation_over_positions(weights: &Tensor, mean: &Tensor) -> Result<Tensor, TchError> {
    if weights.device() != Device::Cpu {
        return weights.f_std_dim([0, 1].as_slice(), true, false);
    }
    let (rows, columns) = (weights.size()[0], weights.size()[1]);
    let of_position = mean.numel() as i64;
    let at_once = (CHUNK / of_position).clamp(1, columns);
    let ones = Tensor::f_ones([1, at_once], (weights.kind(), weights.device()))?;
    let mut squares = Tensor::f_zeros([1, of_position], (weights.kind(), weights.device()))?;
    for row in 0..rows {
        let row = weights.f_get(row)?;
        for first in (0..columns).step_by(at_once as usize) {
            let count = at_once.min(columns - first);
            let mut deviations = row.f_narrow(0, first, count)?.f_sub(mean)?;
            let chunk = deviations.f_square_()?.f_view([count, of_position])?;
            let _ = squares.f_addmm_(&ones.f_narrow(1, 0, count)?, &chunk)?;
        }
    }
    squares
        .f_div_scalar((rows * columns - 1) as f64)?
        .f_sqrt()?
        .f_view(mean.size().as_slice())
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
