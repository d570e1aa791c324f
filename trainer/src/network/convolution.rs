//! The two kinds of layers: weights shared among positions, or not.

use model::Convolution;
use tch::{TchError, Tensor};

use super::activation::Activation;
use crate::engine::{self, Execution, Window};

/// A locally connected layer: `y[h,w,n,o] = Σ_k unfolded(x)[h,w,n,k] · weights[h,w,k,o]`.
///
/// `input` is `[H, W, N, Cin]`, `weights` `[H_out, W_out, K, Cout]` with K in the order (row, column, input channel),
/// `bias` one value per output channel, `[Cout]`.
///
/// # Errors
/// libtorch's, for instance where shapes don't fit `geometry`.
pub fn locally_connected(
    input: &Tensor,
    weights: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Convolution,
) -> Result<Activation, TchError> {
    locally_connected_with(input, weights, bias, geometry, Execution::default())
}

/// As [`locally_connected`], with a say in how it is computed.
///
/// # Errors
/// As [`locally_connected`].
pub fn locally_connected_with(
    input: &Tensor,
    weights: &Tensor,
    bias: Option<&Tensor>,
    geometry: &Convolution,
    execution: Execution<'_>,
) -> Result<Activation, TchError> {
    let window = Window {
        kernel_size: geometry.kernel_size,
        stride: geometry.stride,
        padding: geometry.padding,
    };
    engine::locally_connected(input, weights, bias, window, execution).map(Activation::hwnc)
}

/// An ordinary convolution: `input` is `[N, Cin, H, W]`, `weights` `[Cout, Cin, k, k]`.
///
/// # Errors
/// libtorch's, for instance where shapes don't fit `geometry`.
pub fn convolution(input: &Tensor, weights: &Tensor, geometry: &Convolution) -> Result<Activation, TchError> {
    let (stride, padding) = (geometry.stride as i64, geometry.padding as i64);
    let output = input.f_conv2d(
        weights,
        None::<&Tensor>,
        [stride, stride],
        [padding, padding],
        [1, 1],
        1,
    )?;
    Ok(Activation::nchw(output))
}
