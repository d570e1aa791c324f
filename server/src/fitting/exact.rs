//! Principal components from all eigenvalues of the shorter side: exact, up to rounding.
//!
//! Sums of products are made block by block in double precision: of the centred activations only as much is in memory as a
//! block has.

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef};

use super::FitError;
use super::components::{Components, Directions, Leading, Report};
use super::plan::{self, Plan};
use super::spool::Centred;

/// Where there are no more images than features: the eigenvectors of the images' products.
pub(super) fn from_images(
    activations: &mut Centred,
    plan: &Plan,
    report: &mut Report<'_>,
) -> Result<Components, FitError> {
    let (images, features) = (activations.images(), activations.features());
    let mut products = Mat::zeros(images, images);
    let blocks = plan::blocks(features, plan.block);
    let count = blocks.len();
    for (done, range) in blocks.enumerate() {
        report(done as f64 / count as f64)?;
        let block = activations.block(range, 0..images)?;
        add_products(&mut products, block.transpose(), block);
    }
    let total = trace(&products);
    let leading = Leading::of(products.as_ref(), plan.components, activations.layer())?;
    Ok(Components::of_images(leading, total))
}

/// Where there are more images than features: the eigenvectors of the features' covariances.
pub(super) fn from_features(
    activations: &mut Centred,
    plan: &Plan,
    report: &mut Report<'_>,
) -> Result<Components, FitError> {
    let (images, features) = (activations.images(), activations.features());
    let mut covariances = Mat::zeros(features, features);
    let blocks = plan::blocks(images, plan.block);
    let count = blocks.len();
    for (done, range) in blocks.enumerate() {
        report(done as f64 / count as f64)?;
        let block = activations.block(0..features, range)?;
        add_products(&mut covariances, block, block.transpose());
    }
    let total = trace(&covariances);
    let Leading { vectors, squares } =
        Leading::of(covariances.as_ref(), plan.components, activations.layer())?;
    Ok(Components {
        directions: Directions::Features(vectors),
        squares,
        total,
    })
}

/// Adds a symmetric product's lower triangle.
fn add_products(sum: &mut Mat<f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    triangular::matmul(
        sum.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Add,
        left,
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        faer::get_global_parallelism(),
    );
}

fn trace(matrix: &Mat<f64>) -> f64 {
    (0..matrix.nrows()).map(|index| matrix[(index, index)]).sum()
}
