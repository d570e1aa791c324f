//! The data set that the program carries: a part of Fashion-MNIST (see `data/fashion-mnist/README.md`).

use super::{DataError, DataSet, DataSetKind, Images, idx};

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
pub fn fashion_mnist() -> Result<DataSet, DataError> {
    let (train, test) = (images(0)?, images(2)?);
    let class_names = CLASS_NAMES.map(str::to_owned).to_vec();
    idx::dataset(
        DataSetKind::Embedded,
        (train, test),
        class_names,
        "Fashion-MNIST, embedded part".into(),
    )
}

/// Whether a set's first test image is that of Fashion-MNIST, which both the whole set and the embedded part begin with.
pub(super) fn begins_like(test: &Images) -> Result<bool, DataError> {
    let embedded = images(2)?;
    Ok(test.shape() == embedded.shape()
        && test.labels().first() == embedded.labels().first()
        && test.pixels(0) == embedded.pixels(0))
}

/// The images of a file and the labels of the next.
fn images(file: usize) -> Result<Images, DataError> {
    let read = |file: usize, dimensions| idx::parse(idx::STEMS[file], FILES[file], dimensions);
    idx::join(read(file, 3)?, read(file + 1, 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    #[test]
    fn the_embedded_set_is_balanced() {
        let data = fashion_mnist().unwrap();
        assert_eq!((data.train.len(), data.test.len()), (10_000, 2_000));
        assert_eq!(
            (data.default_input().height, data.default_input().width),
            (28, 28)
        );
        let count = |split: &Split, class| {
            (0..split.len())
                .filter(|&index| split.label(index) == class)
                .count()
        };
        for class in 0..10 {
            assert_eq!(
                (count(&data.train, class), count(&data.test, class)),
                (1_000, 200)
            );
        }
    }
}
