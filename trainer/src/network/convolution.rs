//! The two kinds of layers: weights shared among positions, or not.

use model::Convolution;
use tch::{TchError, Tensor};

use super::activation::Activation;

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
    let (height, width) = (geometry.output.height as i64, geometry.output.width as i64);
    let (fan_in, channels) = (geometry.fan_in() as i64, geometry.out_channels as i64);
    let positions = height * width;
    let images = input.size()[2];
    let patches = unfold(input, geometry)?.f_reshape([positions, images, fan_in])?;
    let weights = weights.f_view([positions, fan_in, channels])?;
    let output = patches
        .f_bmm(&weights)?
        .f_view([height, width, images, channels])?;
    Ok(Activation::hwnc(match bias {
        Some(bias) => output.f_add(bias)?,
        None => output,
    }))
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

/// Every neuron's inputs, `[H_out, W_out, N, K]`: k² strided slices of the padded input, side by side.
fn unfold(input: &Tensor, geometry: &Convolution) -> Result<Tensor, TchError> {
    let (kernel, stride) = (geometry.kernel_size as i64, geometry.stride as i64);
    let padding = geometry.padding as i64;
    let padded = if padding == 0 {
        input.shallow_clone()
    } else {
        input.f_constant_pad_nd([0, 0, 0, 0, padding, padding, padding, padding])?
    };
    let window = |offset: i64, outputs: usize| (offset, offset + (outputs as i64 - 1) * stride + 1);
    let mut slices = Vec::with_capacity(geometry.kernel_size * geometry.kernel_size);
    for row in 0..kernel {
        let (top, bottom) = window(row, geometry.output.height);
        let rows = padded.f_slice(0, top, bottom, stride)?;
        for column in 0..kernel {
            let (left, right) = window(column, geometry.output.width);
            slices.push(rows.f_slice(1, left, right, stride)?);
        }
    }
    match slices.as_slice() {
        [only] => Ok(only.shallow_clone()),
        _ => Tensor::f_cat(&slices, -1),
    }
}
