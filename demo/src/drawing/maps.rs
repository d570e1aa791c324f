//! Which channels of a layer to show, and in which range.

use crate::client::activations::Activations;

/// A channel to show, with the range of its activations over the shown stimuli.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// Its index in the layer.
    pub index: usize,
    /// The smallest activation.
    pub minimum: f32,
    /// The largest activation.
    pub maximum: f32,
}

impl Channel {
    /// Where in the channel's range an activation lies: 0 the smallest, 1 the largest. In a channel that never varies
    /// everything lies at 0.
    pub fn normalised(&self, activation: f32) -> f32 {
        let range = self.maximum - self.minimum;
        if range > 0.0 {
            (activation - self.minimum) / range
        } else {
            0.0
        }
    }
}

/// The `count` channels whose activations vary most over positions and the first `stimuli` stimuli, in the order of the
/// layer; fewer where there are fewer.
pub fn most_varying(activations: &Activations, stimuli: usize, count: usize) -> Vec<Channel> {
    let channels = activations.shape[1];
    let mut by_variance: Vec<(f64, Channel)> = (0..channels)
        .map(|channel| statistics(activations, stimuli, channel))
        .collect();
    by_variance.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut chosen: Vec<Channel> = by_variance
        .into_iter()
        .take(count)
        .map(|(_, channel)| channel)
        .collect();
    chosen.sort_by_key(|channel| channel.index);
    chosen
}

/// Variance and range of a channel. Activations that are no numbers are left out.
fn statistics(activations: &Activations, stimuli: usize, channel: usize) -> (f64, Channel) {
    let values = || {
        (0..stimuli.min(activations.shape[0]))
            .flat_map(|stimulus| activations.map(stimulus, channel))
            .copied()
            .filter(|value| value.is_finite())
    };
    let count = values().count().max(1) as f64;
    let mean = values().map(f64::from).sum::<f64>() / count;
    let variance = values()
        .map(|value| (f64::from(value) - mean).powi(2))
        .sum::<f64>()
        / count;
    let channel = Channel {
        index: channel,
        minimum: values().fold(f32::INFINITY, f32::min),
        maximum: values().fold(f32::NEG_INFINITY, f32::max),
    };
    (variance, channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two stimuli, three channels, one row of two positions.
    fn activations() -> Activations {
        Activations {
            layer: "layer1".to_owned(),
            shape: [2, 3, 1, 2],
            values: vec![0.0, 4.0, 1.0, 1.0, -8.0, 0.0, 2.0, 2.0, 1.0, 1.0, 0.0, 8.0],
        }
    }

    #[test]
    fn the_most_varying_channels_are_shown_in_the_order_of_the_layer() {
        let channels = most_varying(&activations(), 2, 2);
        assert_eq!(
            channels,
            [
                Channel {
                    index: 0,
                    minimum: 0.0,
                    maximum: 4.0
                },
                Channel {
                    index: 2,
                    minimum: -8.0,
                    maximum: 8.0
                },
            ]
        );
        assert_eq!(most_varying(&activations(), 2, 9).len(), 3);
    }

    #[test]
    fn only_shown_stimuli_count() {
        let channels = most_varying(&activations(), 1, 1);
        assert_eq!(
            channels,
            [Channel {
                index: 2,
                minimum: -8.0,
                maximum: 0.0
            }]
        );
    }

    #[test]
    fn activations_are_normalised_by_their_channels_range() {
        let channel = Channel {
            index: 0,
            minimum: -8.0,
            maximum: 8.0,
        };
        assert_eq!(
            [-8.0, 0.0, 8.0].map(|value| channel.normalised(value)),
            [0.0, 0.5, 1.0]
        );
        let constant = Channel {
            index: 1,
            minimum: 1.0,
            maximum: 1.0,
        };
        assert_eq!(constant.normalised(1.0), 0.0);
    }
}
