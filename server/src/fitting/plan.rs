//! How a layer is decomposed, and in blocks of which size, so that it fits into memory.

use std::ops::Range;

/// The longest side of a matrix whose eigenvalues are all computed: that takes a time with its third power.
const LONGEST_SIDE: usize = 8192;

/// What a decomposition of a square matrix needs, in its own size: itself, its vectors and room to work.
const EIGENVALUES: usize = 5;

/// Bytes of a block: larger ones are no faster.
const BLOCK: usize = 64 << 20;

/// How much wider a random subspace is than the components that are wanted of it: that makes the last of them good.
const OVERSAMPLING: usize = 32;

/// How the principal components of activations are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// From the products of the images: there are fewer of them than features.
    Images,
    /// From the covariances of the features.
    Features,
    /// By randomised subspace iteration.
    Randomised {
        /// How many dimensions the subspace has.
        width: usize,
    },
}

/// A layer's decomposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How.
    pub method: Method,
    /// Components at most.
    pub components: usize,
    /// What is read at a time: so many images with [`Method::Features`], else so many features of all images.
    pub block: usize,
}

impl Plan {
    /// The best way in `memory` bytes; none where there is too little.
    pub fn new(images: usize, features: usize, components: usize, memory: usize) -> Option<Self> {
        let float = size_of::<f64>();
        let side = images.min(features);
        let components = components.min(side);
        let plan = |method, resident: usize, length: usize, count: usize| {
            let room = memory.checked_sub(resident)?.min(BLOCK);
            let block = (room / (float * length)).min(count);
            (block > 0).then_some(Self {
                method,
                components,
                block,
            })
        };
        let square = float.checked_mul(side.checked_mul(side)?)?;
        if side <= LONGEST_SIDE && EIGENVALUES * square <= memory {
            return if images <= features {
                plan(Method::Images, square, images + components, features)
            } else {
                plan(Method::Features, square, features, images)
            };
        }
        let width = (components + OVERSAMPLING.max(components / 8)).min(side);
        let tall = float.checked_mul(images.checked_mul(width)?)?;
        // The subspace, its image, and what making it orthogonal takes.
        if tall.checked_mul(4)? > memory {
            return None;
        }
        plan(Method::Randomised { width }, 2 * tall, images + width, features)
    }
}

/// `0..length` in blocks.
pub fn blocks(length: usize, block: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    (0..length.div_ceil(block)).map(move |index| index * block..((index + 1) * block).min(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shorter_side_is_decomposed_where_it_can_be() {
        let method =
            |images, features, memory| Plan::new(images, features, 1000, memory).map(|plan| plan.method);
        assert_eq!(method(1000, 200_704, 1 << 30), Some(Method::Images));
        assert_eq!(method(50_000, 512, 1 << 30), Some(Method::Features));
        assert_eq!(
            method(20_000, 200_704, 2 << 30),
            Some(Method::Randomised { width: 1125 })
        );
        assert_eq!(method(1_000_000, 200_704, 2 << 30), None);
        assert_eq!(method(2, 200_704, 10), None);
    }

    #[test]
    fn blocks_cover_everything_once() {
        let found: Vec<_> = blocks(10, 4).collect();
        assert_eq!(found, [0..4, 4..8, 8..10]);
        assert_eq!(blocks(8, 4).len(), 2);
        assert_eq!(blocks(0, 4).len(), 0);
    }

    proptest! {
        #[test]
        fn a_plan_keeps_to_its_memory(
            images in 2_usize..100_000,
            features in 1_usize..1_000_000,
            components in 1_usize..3000,
            memory in 0_usize..1 << 33,
        ) {
            if let Some(plan) = Plan::new(images, features, components, memory) {
                prop_assert!((1..=components).contains(&plan.components));
                let side = images.min(features);
                let (needed, blocks) = match plan.method {
                    Method::Images => (side * side + plan.block * (images + plan.components), features),
                    Method::Features => (side * side + plan.block * features, images),
                    Method::Randomised { width } => (2 * images * width + plan.block * (images + width), features),
                };
                prop_assert!((1..=blocks).contains(&plan.block));
                prop_assert!(needed * size_of::<f64>() <= memory);
            }
        }
    }
}
