//! Principal components by randomised subspace iteration, where there are too many images for all eigenvalues.
//!
//! A random subspace of the images' space is multiplied by the images' products again and again, until it is that of the
//! greatest eigenvalues (Halko, Martinsson and Tropp, 2011, algorithm 4.4). The products are never made: a block of
//! features at a time, the subspace is multiplied by the activations and by their transpose.

use faer::{Accum, Mat};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::FitError;
use super::components::{Components, Leading, Report};
use super::plan::{self, Plan};
use super::product;
use super::spool::Centred;

/// How often the subspace is multiplied: as often as scikit-learn does it at most, and once more for the eigenvalues.
const PASSES: usize = 8;

/// Finds components in a subspace of `width` dimensions.
pub(super) fn find(
    activations: &mut Centred,
    plan: &Plan,
    width: usize,
    seed: u64,
    report: &mut Report<'_>,
) -> Result<Components, FitError> {
    let mut random = StdRng::seed_from_u64(seed);
    let start = Mat::from_fn(activations.images(), width, |_, _| random.random_range(-1.0..1.0));
    let mut subspace = orthonormal(&start);
    drop(start);
    for pass in 1..PASSES {
        let mut report = |done| report(((pass - 1) as f64 + done) / PASSES as f64);
        let (image, _) = multiply(activations, plan, &subspace, &mut report)?;
        subspace = orthonormal(&image);
    }
    let mut report = |done| report(((PASSES - 1) as f64 + done) / PASSES as f64);
    let (image, total) = multiply(activations, plan, &subspace, &mut report)?;
    let inner = subspace.transpose() * &image;
    drop(image);
    let leading = Leading::of(inner.as_ref(), plan.components, activations.layer())?;
    let leading = Leading {
        vectors: subspace * leading.vectors,
        squares: leading.squares,
    };
    Ok(Components::of_images(leading, total))
}

/// The images' products times a subspace, both `[images, width]`; and the sum of all squared activations.
fn multiply(
    activations: &mut Centred,
    plan: &Plan,
    subspace: &Mat<f64>,
    report: &mut Report<'_>,
) -> Result<(Mat<f64>, f64), FitError> {
    let (images, width) = (subspace.nrows(), subspace.ncols());
    let mut image = Mat::zeros(images, width);
    let mut total = 0.0;
    let mut output = Mat::zeros(plan.block, width);
    let blocks = plan::blocks(activations.features(), plan.block);
    let count = blocks.len();
    for (done, range) in blocks.enumerate() {
        report(done as f64 / count as f64)?;
        let mut output = output.as_mut().subrows_mut(0, range.len());
        let block = activations.block(range, 0..images)?;
        total += block.squared_norm_l2();
        product::multiply(output.as_mut(), Accum::Replace, block, subspace.as_ref());
        product::multiply(image.as_mut(), Accum::Add, block.transpose(), output.as_ref());
    }
    Ok((image, total))
}

/// An orthonormal base of the columns' space.
fn orthonormal(columns: &Mat<f64>) -> Mat<f64> {
    columns.qr().compute_thin_Q()
}
