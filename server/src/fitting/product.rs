//! Products of tall matrices, some rows at a time.
//!
//! faer copies what it multiplies, for each thread that asks for products up to twice as much as the processor's last
//! cache holds, and keeps that memory for the next one. A plan doesn't count it, so that it has to stay small beside what
//! a plan counts.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef};

use super::plan;

/// Rows that are multiplied at a time: with more, nothing gets faster.
const ROWS: usize = 1024;

/// Puts the product of two matrices in the place of a third one, or adds it to that.
pub(super) fn multiply(
    mut product: MatMut<'_, f64>,
    accumulate: Accum,
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
) {
    for rows in plan::blocks(left.nrows(), ROWS) {
        matmul(
            product.as_mut().subrows_mut(rows.start, rows.len()),
            accumulate,
            left.subrows(rows.start, rows.len()),
            right,
            1.0,
            faer::get_global_parallelism(),
        );
    }
}

#[cfg(test)]
mod tests {
    use faer::Mat;

    use super::*;

    #[test]
    fn a_product_of_many_rows_is_the_whole_one() {
        let left = Mat::from_fn(2 * ROWS + 3, 5, |row, column| ((row * 7 + column) % 13) as f64);
        let right = Mat::from_fn(5, 2, |row, column| (row + 3 * column) as f64);
        let expected = &left * &right;
        let mut product = Mat::zeros(left.nrows(), 2);
        multiply(product.as_mut(), Accum::Replace, left.as_ref(), right.as_ref());
        // Sums of whole numbers aren't rounded.
        assert_eq!(product, expected);
        multiply(product.as_mut(), Accum::Add, left.as_ref(), right.as_ref());
        assert_eq!(product, &expected + &expected);
    }
}
