//! The sleep phase in its anti-Hebbian form: lateral connections make the neurons of a class see the same noise, and
//! plasticity makes them answer alike.
//!
//! One iteration is W ← W − η·( xᵀ(z − z̄)/B + γ·(W − W_saved) ), with B inputs x, outputs z and their mean z̄ over the
//! class. Only positions whose receptive field touches no padding belong to a class; at the others z̄ = z.
//!
//! # Many iterations in one pass
//! The noise is a k x k patch per image and channel, tiled over the input. Neurons of a class lie multiples of k·stride
//! pixels apart, so all see the same x. With D = W − W̄, the deviation from the class's mean weights, z − z̄ = xD, and an
//! iteration becomes
//!
//! - W̄ ← W̄: the mean of D is zero, and W_saved are the weights at the beginning of the phase, so W̄ doesn't move;
//! - D ← (1 − ηγ)·D − (η/B)·xᵀ(xD) + ηγ·D₀, with the deviation D₀ at the beginning.
//!
//! That is linear in D₀, by the same K x K matrix for every neuron of the class: D = M·D₀ after any number of iterations,
//! where M begins as the identity and follows M ← (1 − ηγ)·M − (η/B)·xᵀ(xM) + ηγ·I. Classes see one patch, shifted: their
//! matrices are one, with rows and columns permuted. So a layer's whole phase is one sequence of M, however many
//! positions there are, and one pass W ← W̄ + M·(W − W̄) over the weights. Nothing else is needed: no outputs z, no
//! unfolded inputs, no copy W_saved of the weights. At the border neither term moves anything.
//!
//! For n columns (interior positions times output channels), T iterations cost 4·T·B·K² + 2·K²·n operations in this form
//! and 4·T·B·K·n one by one. The latter is cheaper only where T is small beside K/B, and is taken there.
//!
//! # Stability
//! For Gaussian x, E[(xᵀx/B)²] = (1 + (K + 1)/B)·I. An iteration multiplies the mean square of D by
//! 1 − 2η + η²·(1 + (K + 1)/B) (where γ is small), and the phase makes weights alike only while that is below 1, that is
//! η < 2B/(B + K + 1). Wide layers need a lower learning rate, or more inputs, than narrow ones.

use model::Convolution;
use serde::{Deserialize, Serialize};
use tch::{TchError, Tensor, no_grad};

use super::class::{Class, classes};
use crate::training::snr::interior;

/// What decides an anti-Hebbian sleep phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AntiHebbian {
    /// T.
    pub iterations: usize,
    /// B, noise inputs an iteration.
    pub batch_size: usize,
    /// η.
    pub learning_rate: f64,
    /// γ: how strongly weights are held at their values before the phase.
    pub gamma: f64,
}

impl Default for AntiHebbian {
    /// The authors'.
    fn default() -> Self {
        Self {
            iterations: 100,
            batch_size: 128,
            learning_rate: 0.1,
            gamma: 1e-5,
        }
    }
}

impl AntiHebbian {
    /// Whether an iteration makes the weights of a layer less alike, in expectation. A layer without two neurons in a
    /// class has nothing to make alike.
    pub fn diverges(&self, geometry: &Convolution) -> bool {
        let kept = 1.0 - self.learning_rate * self.gamma;
        let batch = self.batch_size as f64;
        let square = 1.0 + (geometry.fan_in() as f64 + 1.0) / batch;
        let factor =
            kept * kept - 2.0 * kept * self.learning_rate + self.learning_rate * self.learning_rate * square;
        factor > 1.0 && largest_class(geometry) > 0
    }

    /// The largest learning rate, where γ is small, with which the phase makes the weights of a layer more alike.
    pub fn largest_learning_rate(&self, geometry: &Convolution) -> f64 {
        let batch = self.batch_size as f64;
        2.0 * batch / (batch + geometry.fan_in() as f64 + 1.0)
    }

    /// Whether one pass at the end is cheaper than one an iteration.
    pub(crate) fn composes(&self, geometry: &Convolution) -> bool {
        let (rows, columns) = interior_of(geometry);
        let columns = ((rows.1 - rows.0) * (columns.1 - columns.0)) as f64 * geometry.out_channels as f64;
        let fan_in = geometry.fan_in() as f64;
        let passes = 4.0 * self.iterations as f64 * self.batch_size as f64;
        passes * fan_in + 2.0 * fan_in * columns < passes * columns
    }
}

/// Runs the whole phase on the weights `[H_out, W_out, K, Cout]` of a layer, in place, with noise from libtorch's
/// generator (seed it with `tch::manual_seed`).
///
/// # Errors
/// libtorch's, for instance where memory for two classes of weights or for two K x K matrices doesn't suffice.
pub fn share_anti_hebbian(
    weights: &Tensor,
    geometry: &Convolution,
    options: &AntiHebbian,
) -> Result<(), TchError> {
    if largest_class(geometry) == 0 {
        return Ok(());
    }
    let (kernel, channels) = (geometry.kernel_size as i64, geometry.in_channels as i64);
    let size = [options.batch_size as i64, kernel, kernel, channels];
    let patches = (0..options.iterations)
        .map(|_| Tensor::f_empty(size, (weights.kind(), weights.device()))?.f_normal_(0.0, 1.0));
    if options.composes(geometry) {
        return share_with_patches(weights, patches, geometry, options);
    }
    let mut saved = weights.f_empty_like()?;
    no_grad(|| saved.f_copy_(weights))?;
    for patch in patches {
        anti_hebbian_iteration(weights, &saved, &tile(&patch?, geometry)?, geometry, options)?;
    }
    Ok(())
}

/// The whole phase in one pass, with given noise: a patch `[B, k, k, Cin]` an iteration.
///
/// # Errors
/// Those of `patches`, and libtorch's.
pub fn share_with_patches(
    weights: &Tensor,
    patches: impl IntoIterator<Item = Result<Tensor, TchError>>,
    geometry: &Convolution,
    options: &AntiHebbian,
) -> Result<(), TchError> {
    no_grad(|| {
        let map = deviation_map(weights, patches, geometry, options)?;
        let (rows, columns) = interior_of(geometry);
        for class in classes(weights, geometry.kernel_size, rows, columns)? {
            if class.positions() > 1 {
                apply(&shifted(&map, &class, geometry)?, &class)?;
            }
        }
        Ok(())
    })
}

/// One iteration on the weights `[H_out, W_out, K, Cout]` of a layer, in place, with any input `[B, Cin, H, W]` and any
/// saved weights.
///
/// # Errors
/// libtorch's.
pub fn anti_hebbian_iteration(
    weights: &Tensor,
    saved: &Tensor,
    input: &Tensor,
    geometry: &Convolution,
    options: &AntiHebbian,
) -> Result<(), TchError> {
    let hold = options.learning_rate * options.gamma;
    let step = options.learning_rate / input.size()[0] as f64;
    let (rows, columns) = interior_of(geometry);
    no_grad(|| {
        let now = classes(weights, geometry.kernel_size, rows, columns)?;
        let before = classes(saved, geometry.kernel_size, rows, columns)?;
        for (mut class, saved) in now.into_iter().zip(before) {
            let size = class.weights.size();
            let fields = receptive_fields(input, &class, geometry)?;
            let outputs = fields.f_bmm(&class.weights.f_reshape([-1, size[2], size[3]])?)?;
            let deviation = outputs.f_sub(&outputs.f_mean_dim([0].as_slice(), true, None::<tch::Kind>)?)?;
            let gradient = fields.f_transpose(1, 2)?.f_bmm(&deviation)?.f_mul_scalar(step)?;
            let _ = class.weights.f_lerp_(&saved.weights, hold)?;
            let _ = class.weights.f_sub_(&gradient.f_view(size.as_slice())?)?;
        }
        for (mut weights, saved) in border(weights, rows, columns)?
            .into_iter()
            .zip(border(saved, rows, columns)?)
        {
            let _ = weights.f_lerp_(&saved, hold)?;
        }
        Ok(())
    })
}

/// A patch `[B, k, k, Cin]` repeated over a layer's input, `[B, Cin, H, W]`.
///
/// # Errors
/// libtorch's.
pub fn tile(patch: &Tensor, geometry: &Convolution) -> Result<Tensor, TchError> {
    let kernel = geometry.kernel_size;
    let times = |length: usize| length.div_ceil(kernel) as i64;
    let (height, width) = (geometry.input.height, geometry.input.width);
    patch
        .f_permute([0, 3, 1, 2])?
        .f_repeat([1, 1, times(height), times(width)])?
        .f_narrow(2, 0, height as i64)?
        .f_narrow(3, 0, width as i64)
}

/// M after all iterations, `[K, K]`, for a neuron that sees the patches unshifted.
fn deviation_map(
    weights: &Tensor,
    patches: impl IntoIterator<Item = Result<Tensor, TchError>>,
    geometry: &Convolution,
    options: &AntiHebbian,
) -> Result<Tensor, TchError> {
    let fan_in = geometry.fan_in() as i64;
    let hold = options.learning_rate * options.gamma;
    let mut map = Tensor::f_eye(fan_in, (weights.kind(), weights.device()))?;
    let mut diagonal = map.f_diagonal(0, 0, 1)?;
    for patch in patches {
        let inputs = patch?.f_reshape([-1, fan_in])?;
        let step = options.learning_rate / inputs.size()[0] as f64;
        let outputs = inputs.f_mm(&map)?.f_mul_scalar_(-step)?;
        let _ = map.f_mul_scalar_(1.0 - hold)?;
        let _ = map.f_addmm_(&inputs.f_transpose(0, 1)?, &outputs)?;
        let _ = diagonal.f_add_scalar_(hold)?;
    }
    Ok(map)
}

/// The matrix of a class: its neurons see the patch from the pixel where their receptive fields begin.
fn shifted(map: &Tensor, class: &Class, geometry: &Convolution) -> Result<Tensor, TchError> {
    let (kernel, channels) = (geometry.kernel_size as i64, geometry.in_channels as i64);
    let begin = |residue: i64| residue * geometry.stride as i64 - geometry.padding as i64;
    let (row, column) = (begin(class.residue.0), begin(class.residue.1));
    map.f_view([kernel, kernel, channels, kernel, kernel, channels])?
        .f_roll([-row, -column, -row, -column], [0, 1, 3, 4])?
        .f_view([kernel * kernel * channels, -1])
}

/// W ← W̄ + M·(W − W̄) for the neurons of a class, as one matrix product.
fn apply(map: &Tensor, class: &Class) -> Result<(), TchError> {
    let size = class.weights.size();
    let (rows, columns, fan_in, channels) = (size[0], size[1], size[2], size[3]);
    let weights = class.weights.f_permute([2, 0, 1, 3])?;
    let mean = class.mean()?.f_view([fan_in, 1, 1, channels])?;
    let deviation = Tensor::f_empty([fan_in, rows, columns, channels], (map.kind(), map.device()))?;
    let _ = weights.f_sub_out(&deviation, &mean)?;
    let moved = map.f_mm(&deviation.f_view([fan_in, -1])?)?;
    let _ = moved
        .f_view([fan_in, rows, columns, channels])?
        .f_add_out(&weights, &mean)?;
    Ok(())
}

/// What the neurons of a class see of an input `[B, Cin, H, W]`: `[positions, B, K]`.
fn receptive_fields(input: &Tensor, class: &Class, geometry: &Convolution) -> Result<Tensor, TchError> {
    let (kernel, stride) = (geometry.kernel_size as i64, geometry.stride as i64);
    let begin = |position: i64| position * stride - geometry.padding as i64;
    let (row, column) = (begin(class.first.0), begin(class.first.1));
    let size = class.weights.size();
    let distance = kernel * stride;
    let length = |count: i64| (count - 1) * distance + kernel;
    input
        .f_narrow(2, row, length(size[0]))?
        .f_narrow(3, column, length(size[1]))?
        .f_unfold(2, kernel, distance)?
        .f_unfold(3, kernel, distance)?
        .f_permute([2, 3, 0, 4, 5, 1])?
        .f_reshape([class.positions(), input.size()[0], size[2]])
}

/// The rows and columns of positions whose receptive field touches no padding, as half-open ranges.
fn interior_of(geometry: &Convolution) -> ((i64, i64), (i64, i64)) {
    (
        interior(geometry.input.height, geometry.output.height, geometry),
        interior(geometry.input.width, geometry.output.width, geometry),
    )
}

/// Neurons of one channel in the largest class; 0 where no class has two, so that there is nothing to make alike.
pub(crate) fn largest_class(geometry: &Convolution) -> usize {
    let (rows, columns) = interior_of(geometry);
    let neurons = |(first, end): (i64, i64)| ((end - first).max(0) as usize).div_ceil(geometry.kernel_size);
    match neurons(rows) * neurons(columns) {
        1 => 0,
        neurons => neurons,
    }
}

/// The weights outside the interior: four views, some of them empty.
fn border(weights: &Tensor, rows: (i64, i64), columns: (i64, i64)) -> Result<[Tensor; 4], TchError> {
    let size = weights.size();
    let between = weights.f_slice(0, rows.0, rows.1, 1)?;
    Ok([
        weights.f_slice(0, 0, rows.0, 1)?,
        weights.f_slice(0, rows.1, size[0], 1)?,
        between.f_slice(1, 0, columns.0, 1)?,
        between.f_slice(1, columns.1, size[1], 1)?,
    ])
}
