//! What BatchNorm asks of batches: in training it takes the variance of a channel over images and positions, of two values at
//! least. A larger batch never leaves one image over, see [`epoch_batches`](crate::data::epoch_batches).

use model::Network;
use model::network::ConvolutionUnit;
use thiserror::Error;

/// A batch size that leaves a BatchNorm one value a channel.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "one image a step can't train this network: `{layer}` has one position, so that BatchNorm would take the variance of one \
     value a channel; --batch-size (`training.batch_size`) must be at least 2"
)]
pub struct SingleValue {
    /// The first such BatchNorm.
    pub layer: String,
}

/// Checks that BatchNorm can train on batches of so many images, before a training run relies on it.
///
/// # Errors
/// [`SingleValue`].
pub fn check_batch_size(network: &Network, batch_size: usize) -> Result<(), SingleValue> {
    let single = |unit: &&ConvolutionUnit| batch_size < 2 && unit.convolution.positions() == 1;
    match network.units().find(single) {
        None => Ok(()),
        Some(unit) => Err(SingleValue {
            layer: unit.norm_layer.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Architecture, Connectivity, InputShape};

    #[test]
    fn one_image_is_too_few_where_a_layer_has_one_position() {
        let network = |side| {
            let input = InputShape {
                channels: 1,
                height: side,
                width: side,
            };
            let mut architecture = Architecture::resnet_cifar(1, input, 2, 3, Connectivity::Convolutional);
            architecture.blocks = vec![1, 1];
            architecture.network().unwrap()
        };
        let error = check_batch_size(&network(2), 1).unwrap_err();
        assert_eq!(error.layer, "layer2.0.bn1");
        assert_eq!(check_batch_size(&network(2), 2), Ok(()));
        assert_eq!(check_batch_size(&network(3), 1), Ok(()));
    }
}
