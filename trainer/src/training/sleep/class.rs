//! Classes of neurons: output positions with the same (row mod k, column mod k), whose receptive fields don't overlap.

use tch::{Device, Kind, TchError, Tensor};

/// The weights of one class.
pub(super) struct Class {
    /// A strided view `[R, C, K, Cout]` of the layer's weights.
    pub(super) weights: Tensor,
    /// Row mod k and column mod k, which all its positions have in common.
    pub(super) residue: (i64, i64),
    /// The position of its first neuron, (row, column).
    pub(super) first: (i64, i64),
}

/// The k² classes (fewer where there are fewer positions) of weights `[H_out, W_out, K, Cout]`, restricted to `rows`
/// and `columns`, half-open ranges of positions.
pub(super) fn classes(
    weights: &Tensor,
    kernel_size: usize,
    rows: (i64, i64),
    columns: (i64, i64),
) -> Result<Vec<Class>, TchError> {
    let kernel = kernel_size as i64;
    let mut classes = Vec::with_capacity(kernel_size * kernel_size);
    for row in rows.0..rows.1.min(rows.0 + kernel) {
        let same_row = weights.f_slice(0, row, rows.1, kernel)?;
        for column in columns.0..columns.1.min(columns.0 + kernel) {
            classes.push(Class {
                weights: same_row.f_slice(1, column, columns.1, kernel)?,
                residue: (row % kernel, column % kernel),
                first: (row, column),
            });
        }
    }
    Ok(classes)
}

impl Class {
    /// How many neurons of one channel the class has.
    pub(super) fn positions(&self) -> i64 {
        let size = self.weights.size();
        size[0] * size[1]
    }

    /// The mean over the positions, `[K, Cout]`.
    pub(super) fn mean(&self) -> Result<Tensor, TchError> {
        mean_over_positions(&self.weights)
    }
}

/// The mean over the positions of weights `[R, C, K, Cout]`, which may be a strided view: `[K, Cout]`.
///
/// A row of positions is a matrix with any distance between its rows, and its sum a product with ones: that runs at the
/// speed of memory. libtorch's own mean over two strided dimensions takes up to ten times as long on a CPU. On other devices
/// it is taken all the same: there a product may be set to lower precision, and every row would be a kernel to launch.
pub(in crate::training) fn mean_over_positions(weights: &Tensor) -> Result<Tensor, TchError> {
    if weights.device() != Device::Cpu {
        return weights.f_mean_dim([0, 1].as_slice(), false, None::<Kind>);
    }
    let size = weights.size();
    let rows = weights.f_reshape([size[0], size[1], size[2] * size[3]])?;
    let ones = Tensor::f_ones([1, size[1]], (weights.kind(), weights.device()))?;
    let mut sum = ones.f_mm(&rows.f_get(0)?)?;
    for row in 1..size[0] {
        let _ = sum.f_addmm_(&ones, &rows.f_get(row)?)?;
    }
    // Dividing once, not multiplying by a rounded 1/n: training shares the same weights again and again, and a bias would
    // add up.
    let _ = sum.f_div_scalar_((size[0] * size[1]) as f64)?;
    sum.f_view([size[2], size[3]])
}
