//! The order in which training sees images.

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

/// The batches of one epoch as indices of images: every image once, in an order that seed and epoch decide. A last batch
/// of one image is left out, as BatchNorm can't train on it.
pub fn epoch_batches(images: usize, batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..images).collect();
    order.shuffle(&mut generator);
    let batches = order.chunks(batch_size.max(1)).map(<[usize]>::to_vec);
    batches
        .filter(|batch| batch.len() > 1 || batch_size == 1)
        .collect()
}

/// All images in their order, in batches.
pub fn in_order(images: usize, batch_size: usize) -> Vec<Vec<usize>> {
    let indices: Vec<usize> = (0..images).collect();
    indices.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_image_once_in_an_order_of_its_own() {
        let first = epoch_batches(103, 10, 7, 0);
        let mut seen: Vec<usize> = first.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..103).collect::<Vec<_>>());
        assert_eq!(first, epoch_batches(103, 10, 7, 0));
        assert_ne!(first, epoch_batches(103, 10, 7, 1));
        assert_ne!(first, epoch_batches(103, 10, 8, 0));
    }

    #[test]
    fn a_last_batch_of_one_image_is_left_out() {
        let sizes = |batches: &[Vec<usize>]| batches.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&epoch_batches(11, 5, 0, 0)), [5, 5]);
        assert_eq!(sizes(&epoch_batches(2, 1, 0, 0)), [1, 1]);
        assert_eq!(sizes(&in_order(11, 5)), [5, 5, 1]);
        assert_eq!(in_order(11, 5).concat(), (0..11).collect::<Vec<_>>());
    }
}
