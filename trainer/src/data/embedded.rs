//! The data set that the program carries: a part of Fashion-MNIST (see `data/fashion-mnist/README.md`).

use super::{DataError, Dataset, idx};

/// The names of Fashion-MNIST's classes, in the order of their labels.
pub(super) const CLASS_NAMES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

const FILES: [&[u8]; 4] = [
    include_bytes!("../../../data/fashion-mnist/train-images-idx3-ubyte.gz"),
    include_bytes!("../../../data/fashion-mnist/train-labels-idx1-ubyte.gz"),
    include_bytes!("../../../data/fashion-mnist/t10k-images-idx3-ubyte.gz"),
    include_bytes!("../../../data/fashion-mnist/t10k-labels-idx1-ubyte.gz"),
];

/// 10,000 training and 2,000 test images of Fashion-MNIST, 28x28 pixels, grey.
///
/// # Errors
/// [`DataError`] where the program was built from damaged files.
pub fn fashion_mnist() -> Result<Dataset, DataError> {
    let read = |file: usize, dimensions| idx::parse(idx::STEMS[file], FILES[file], dimensions);
    let train = idx::join(read(0, 3)?, read(1, 1)?)?;
    let test = idx::join(read(2, 3)?, read(3, 1)?)?;
    let class_names = CLASS_NAMES.map(str::to_owned).to_vec();
    idx::dataset(train, test, class_names, "Fashion-MNIST, embedded part".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_set_is_balanced() {
        let data = fashion_mnist().unwrap();
        assert_eq!((data.train.len(), data.test.len()), (10_000, 2_000));
        assert_eq!((data.train.shape().height, data.train.shape().width), (28, 28));
        for class in 0..10 {
            assert_eq!(
                data.train
                    .labels()
                    .iter()
                    .filter(|&&label| label == class)
                    .count(),
                1_000
            );
            assert_eq!(
                data.test.labels().iter().filter(|&&label| label == class).count(),
                200
            );
        }
    }
}
