//! Colours for numbers: viridis, whose steps look equally large, in print and to the colour-blind too.

use super::canvas::Colour;

/// viridis at 0, 1/8, 2/8, … 1.
const VIRIDIS: [[f32; 3]; 9] = [
    [68.0, 1.0, 84.0],
    [71.0, 45.0, 123.0],
    [59.0, 82.0, 139.0],
    [44.0, 114.0, 142.0],
    [33.0, 145.0, 140.0],
    [40.0, 174.0, 128.0],
    [94.0, 201.0, 98.0],
    [173.0, 220.0, 48.0],
    [253.0, 231.0, 37.0],
];

/// The colour of a number from 0 (dark violet) to 1 (yellow); numbers outside get the colours of the ends, and what is no
/// number the first.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers are limited to the table and to bytes"
)]
pub fn colour(value: f32) -> Colour {
    let limited = if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    };
    let position = limited * (VIRIDIS.len() - 1) as f32;
    let below = (position as usize).min(VIRIDIS.len() - 2);
    let share = position - below as f32;
    let mixed = std::array::from_fn(|channel| {
        let (from, to) = (VIRIDIS[below][channel], VIRIDIS[below + 1][channel]);
        (from + (to - from) * share).round() as u8
    });
    image::Rgb(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_met_and_what_lies_between_is_mixed() {
        assert_eq!(colour(0.0).0, [68, 1, 84]);
        assert_eq!(colour(0.5).0, [33, 145, 140]);
        assert_eq!(colour(1.0).0, [253, 231, 37]);
        assert_eq!(colour(0.0625).0, [70, 23, 104]);
    }

    #[test]
    fn numbers_outside_get_the_colours_of_the_ends() {
        assert_eq!(colour(-3.0), colour(0.0));
        assert_eq!(colour(f32::INFINITY), colour(1.0));
        assert_eq!(colour(f32::NAN), colour(0.0));
    }

    #[test]
    fn larger_numbers_are_lighter() {
        let luminance = |value: f32| {
            let [red, green, blue] = colour(value).0.map(f32::from);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        for step in 0..100_u8 {
            let value = f32::from(step) / 100.0;
            assert!(luminance(value) < luminance(value + 0.01), "at {value}");
        }
    }
}
