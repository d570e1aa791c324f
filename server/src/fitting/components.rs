//! The principal components of a layer, before they are written: what each is made of, and how much it explains.

use faer::{Mat, MatRef};

use super::FitError;
use super::exact;
use super::plan::{Method, Plan};
use super::randomised;
use super::spool::Centred;

/// Tells how much of something is done, from 0 to 1; an error ends it.
pub type Report<'a> = dyn FnMut(f64) -> Result<(), FitError> + 'a;

/// How many roundings an eigenvalue has besides one for each row of its matrix.
const ROUNDINGS: usize = 64;

/// The principal components of a layer.
#[derive(Debug)]
pub struct Components {
    /// What they are made of.
    pub directions: Directions,
    /// Squared singular values of the centred activations, the greatest first: one a component, and one component at
    /// least.
    pub squares: Vec<f64>,
    /// The sum of all squares, those included of which there is no component.
    pub total: f64,
}

/// What components are made of.
#[derive(Debug)]
pub enum Directions {
    /// `[features, components]`: they themselves.
    Features(Mat<f64>),
    /// `[images, components]`: how much of every image's centred activations is in them.
    Images(Mat<f64>),
}

impl Components {
    /// Finds the components as `plan` says. `seed` is for those that are random.
    ///
    /// # Errors
    /// [`FitError`] where activations can't be read, or `report` says so.
    pub fn find(
        activations: &mut Centred,
        plan: &Plan,
        seed: u64,
        report: &mut Report<'_>,
    ) -> Result<Self, FitError> {
        match plan.method {
            Method::Images => exact::from_images(activations, plan, report),
            Method::Features => exact::from_features(activations, plan, report),
            Method::Randomised { width } => randomised::find(activations, plan, width, seed, report),
        }
    }

    /// From the products of images, the weights of images in each component.
    pub(super) fn of_images(leading: Leading, total: f64) -> Self {
        let Leading { mut vectors, squares } = leading;
        for (vector, &square) in std::iter::zip(vectors.col_iter_mut(), &squares) {
            let scale = if square > 0.0 { square.sqrt().recip() } else { 0.0 };
            vector.iter_mut().for_each(|value| *value *= scale);
        }
        Self {
            directions: Directions::Images(vectors),
            squares,
            total,
        }
    }
}

/// The eigenvectors of the greatest eigenvalues of a symmetric matrix.
#[derive(Debug)]
pub(super) struct Leading {
    /// One a column.
    pub vectors: Mat<f64>,
    /// The eigenvalues, the greatest first.
    pub squares: Vec<f64>,
}

impl Leading {
    /// `count` eigenvectors at most, and none whose eigenvalue is nothing but rounding; at least one, which is zero where
    /// the matrix is. Both triangles of `matrix` may be different: the lower one counts.
    pub fn of(matrix: MatRef<'_, f64>, count: usize, layer: &str) -> Result<Self, FitError> {
        let side = matrix.nrows();
        let eigen = matrix
            .self_adjoint_eigen(faer::Side::Lower)
            .map_err(|_| FitError::Eigenvalues { layer: layer.into() })?;
        // In nondecreasing order.
        let values = eigen.S().column_vector();
        let greatest = values[side - 1];
        let rounding = greatest * (side + ROUNDINGS) as f64 * f64::EPSILON;
        let significant = (0..side)
            .rev()
            .take_while(|&index| values[index] > rounding.max(0.0));
        let squares: Vec<f64> = significant.take(count).map(|index| values[index]).collect();
        if squares.is_empty() {
            return Ok(Self {
                vectors: Mat::zeros(side, 1),
                squares: vec![0.0],
            });
        }
        let vectors = Mat::from_fn(side, squares.len(), |row, column| {
            eigen.U()[(row, side - 1 - column)]
        });
        Ok(Self { vectors, squares })
    }
}
