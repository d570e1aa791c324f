//! Names of the networks that are known.

use model::{Architecture, Stem};

/// `ResNet-18`, `CIFAR ResNet-20`, or the depth of a network that isn't one of a family.
pub(super) fn of(architecture: &Architecture) -> String {
    let blocks = architecture
        .blocks
        .iter()
        .fold(0_usize, |sum, &count| sum.saturating_add(count));
    // Two convolutions a block, the stem's, and the readout.
    let depth = blocks.saturating_mul(2).saturating_add(2);
    let stem = |kernel_size, stride, max_pool| Stem {
        kernel_size,
        stride,
        max_pool,
    };
    match (architecture.blocks.as_slice(), architecture.kernel_size) {
        ([2, 2, 2, 2], 3) if architecture.stem == stem(7, 2, true) => "ResNet-18".into(),
        ([first, second, third], 3)
            if first == second && second == third && architecture.stem == stem(3, 1, false) =>
        {
            format!("CIFAR ResNet-{depth}")
        }
        _ => format!("residual network of {depth} layers"),
    }
}

#[cfg(test)]
mod tests {
    use model::{Connectivity, InputShape};

    use super::*;

    #[test]
    fn the_families_of_the_paper_have_their_names() {
        let input = InputShape {
            channels: 3,
            height: 64,
            width: 64,
        };
        let resnet18 = Architecture::resnet18(input, 4, 10, Connectivity::Convolutional);
        assert_eq!(of(&resnet18), "ResNet-18");
        let mut cifar = Architecture::resnet_cifar(3, input, 16, 10, Connectivity::Convolutional);
        assert_eq!(of(&cifar), "CIFAR ResNet-20");
        cifar.stem.max_pool = true;
        assert_eq!(of(&cifar), "residual network of 20 layers");
    }
}
