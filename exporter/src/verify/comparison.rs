//! Compares two tensors of activations, a part at a time.

/// How far two tensors are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TensorError {
    /// The largest absolute difference; NaN where an element is NaN.
    pub(super) absolute: f64,
    /// `absolute` over the largest magnitude that was expected; 0 where nothing differs, infinite where all expected
    /// values are 0 and others were found.
    pub(super) relative: f64,
}

/// What has been compared of two tensors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Comparison {
    /// The largest absolute difference; NaN once an element is.
    absolute: f64,
    /// The largest magnitude that was expected.
    magnitude: f64,
}

impl Comparison {
    /// Compares further elements, as many of both.
    pub(super) fn add(&mut self, expected: impl Iterator<Item = f32>, found: &[f32]) {
        for (expected, &found) in expected.zip(found) {
            let expected = f64::from(expected);
            let difference = (f64::from(found) - expected).abs();
            // `max` would ignore NaN.
            if difference.is_nan() || self.absolute.is_nan() {
                self.absolute = f64::NAN;
                return;
            }
            self.absolute = self.absolute.max(difference);
            self.magnitude = self.magnitude.max(expected.abs());
        }
    }

    /// How far the tensors are apart, as far as they were compared.
    pub(super) fn error(self) -> TensorError {
        let relative = if self.absolute == 0.0 {
            0.0
        } else {
            self.absolute / self.magnitude
        };
        TensorError {
            absolute: self.absolute,
            relative,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(expected: &[f32], found: &[f32]) -> (f64, f64) {
        // In two parts, wherever they are divided.
        let mut comparison = Comparison::default();
        let middle = expected.len() / 2;
        comparison.add(expected[..middle].iter().copied(), &found[..middle]);
        comparison.add(expected[middle..].iter().copied(), &found[middle..]);
        let error = comparison.error();
        (error.absolute, error.relative)
    }

    #[test]
    fn the_largest_error_is_measured_by_the_largest_magnitude() {
        assert_eq!(errors(&[1.0, -4.0, 2.0], &[1.5, -4.25, 2.0]), (0.5, 0.125));
        assert_eq!(errors(&[0.0, 0.0], &[0.0, 0.0]), (0.0, 0.0));
        assert_eq!(errors(&[0.0, 0.0], &[0.0, 0.5]), (0.5, f64::INFINITY));
    }

    #[test]
    fn what_is_no_number_is_never_close() {
        for (expected, found) in [
            (f32::NAN, 0.0),
            (0.0, f32::NAN),
            (f32::NAN, f32::NAN),
            (f32::INFINITY, f32::INFINITY),
        ] {
            let (absolute, relative) = errors(&[1.0, expected, 1.0], &[1.0, found, 1.0]);
            assert!(absolute.is_nan() && relative.is_nan());
        }
        let (_, relative) = errors(&[1.0], &[f32::INFINITY]);
        assert_eq!(relative, f64::INFINITY);
    }
}
