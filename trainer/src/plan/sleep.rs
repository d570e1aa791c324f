//! What a sleep phase needs beside the weights: that of the layer that needs most.

use std::num::Saturating;

use model::{Convolution, Network};

use super::{Count, Need, SINGLE, Setup, count, layers, need};
use crate::training::{AntiHebbian, SleepPhase, largest_class};

pub(super) fn phase(network: &Network, setup: &Setup) -> Option<Need> {
    let (phase, _) = setup.sleep?;
    let of_layer = |layer: &Convolution| match phase {
        SleepPhase::Instant => Saturating(2) * count(layer.fan_in()) * count(layer.out_channels),
        SleepPhase::AntiHebbian(options) => anti_hebbian(layer, &options),
    };
    let most = layers(network).map(of_layer).max().unwrap_or_default();
    Some(need(
        "sleep phase",
        SINGLE * most,
        "of the layer that needs most".into(),
    ))
}

/// Where all iterations are one pass, two classes of weights and K x K matrices. One by one they need the layer's weights
/// before the phase, the noise over its whole input, and of one class the receptive fields, outputs and gradients.
fn anti_hebbian(layer: &Convolution, options: &AntiHebbian) -> Count {
    let neurons = count(largest_class(layer));
    let (fan_in, weights) = (count(layer.fan_in()), count(layer.weight_count()));
    let two = Saturating(2);
    if neurons.0 == 0 {
        return Saturating(0);
    }
    if options.composes(layer) {
        let classes = (layer.kernel_size * layer.kernel_size) as u64;
        return two * Saturating(weights.0.div_ceil(classes)) + Saturating(3) * fan_in * fan_in;
    }
    let (noise, channels) = (count(options.batch_size), count(layer.out_channels));
    // Whole patches are laid beside each other, and what stands out over the input's edge is left out later.
    let tiled = |length: usize| count(length.next_multiple_of(layer.kernel_size));
    let input = count(layer.in_channels) * tiled(layer.input.height) * tiled(layer.input.width);
    let class = noise * fan_in + two * (noise * channels + fan_in * channels);
    weights + noise * (fan_in + input) + neurons * class
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::network::Resolution;

    #[test]
    fn iterations_one_by_one_need_a_copy_of_the_weights_and_what_they_unfold() {
        let input = Resolution {
            height: 16,
            width: 16,
        };
        // 14 x 14 of its positions touch no padding: 5 x 5 neurons in the largest of 9 classes.
        let layer = Convolution::new("conv", true, (4, 8), (3, 1), input).unwrap();
        let with = |iterations, batch_size| AntiHebbian {
            iterations,
            batch_size,
            ..AntiHebbian::default()
        };
        let composed = anti_hebbian(&layer, &with(100, 128));
        assert_eq!(composed.0, 2 * 256 * 36 * 8 / 9 + 3 * 36 * 36);
        let one_by_one = anti_hebbian(&layer, &with(1, 2));
        let (saved, noise) = (256 * 36 * 8, 2 * (36 + 4 * 18 * 18));
        let (fields, outputs, gradients) = (25 * 2 * 36, 25 * 2 * 8, 25 * 36 * 8);
        assert_eq!(one_by_one.0, saved + noise + fields + 2 * outputs + 2 * gradients);
        assert_eq!(
            anti_hebbian(&layer, &with(1, usize::MAX)).0,
            256 * 36 * 8 * 2 / 9 + 3 * 36 * 36
        );
        let one_position = Convolution::new("conv", true, (4, 8), (3, 2), Resolution { height: 2, width: 2 });
        assert_eq!(anti_hebbian(&one_position.unwrap(), &with(1, 2)).0, 0);
    }
}
