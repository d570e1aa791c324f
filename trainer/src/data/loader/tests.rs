use super::*;
use crate::data::source::Source;
use crate::data::{Images, NativeSize, epoch_batches};
use model::ColorMode;
use model::image::Pixels;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

const INPUT: InputShape = InputShape {
    channels: 3,
    height: 8,
    width: 8,
};

/// Images of 10x12 pixels that all differ.
fn split(count: usize) -> Split {
    let length = 10 * 12 * 3;
    let pixels = (0..count * length)
        .map(|place| (place * 7919 % 251) as u8)
        .collect();
    let labels = (0..count).map(|image| (image % 10) as u8).collect();
    Images::new(pixels, labels, (3, 10, 12)).unwrap().into()
}

fn load(split: &Split, options: LoaderOptions, epoch: usize, batches: &[Vec<usize>]) -> Vec<Batch> {
    let preprocessing = Preprocessing::imagenet(INPUT);
    let loader = Loader::new(split, &preprocessing, INPUT, Device::Cpu, options).unwrap();
    loader.load(epoch, batches).map(Result::unwrap).collect()
}

fn options(workers: usize) -> LoaderOptions {
    LoaderOptions {
        augmentation: Augmentation::random_resized_crop(),
        seed: 11,
        workers,
        skip_corrupt: false,
    }
}

fn assert_same(found: &[Batch], expected: &[Batch]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.images.equal(&expected.images) && found.labels.equal(&expected.labels));
        assert_eq!(
            (&found.indices, found.skipped),
            (&expected.indices, expected.skipped)
        );
    }
}

#[test]
fn batches_are_the_same_with_1_and_4_workers() {
    let split = split(203);
    let batches = epoch_batches(split.len(), 37, 11, 3);
    let expected = load(&split, options(1), 3, &batches);
    assert_eq!(expected[0].images.size(), [37, 3, 8, 8]);
    for workers in [2, 4, 7] {
        assert_same(&load(&split, options(workers), 3, &batches), &expected);
    }
    // A run that goes on in the middle of the epoch sees the rest of it.
    assert_same(&load(&split, options(4), 3, &batches[2..]), &expected[2..]);
    let other = load(&split, options(4), 4, &batches);
    assert!(!other[0].images.equal(&expected[0].images));
}

#[test]
fn labels_belong_to_their_images() {
    let split = split(50);
    for batch in load(&split, LoaderOptions::default(), 0, &epoch_batches(50, 8, 1, 0)) {
        let labels = Vec::<i64>::try_from(&batch.labels).unwrap();
        let expected: Vec<i64> = batch.indices.iter().map(|index| (index % 10) as i64).collect();
        assert_eq!(labels, expected);
        let single = load(&split, LoaderOptions::default(), 0, &[vec![batch.indices[0]]]);
        assert!(single[0].images.get(0).equal(&batch.images.get(0)));
    }
}

/// Counts the images that are asked of it.
#[derive(Debug)]
struct Counting {
    images: Split,
    decoded: Arc<AtomicUsize>,
}

impl Source for Counting {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn label(&self, index: usize) -> usize {
        self.images.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn image(&self, index: usize, color: ColorMode) -> Result<Pixels, DataError> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        self.images.image(index, color)
    }

    fn encoded(&self, index: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.images.encoded(index)
    }

    fn native(&self) -> NativeSize {
        self.images.native()
    }
}

#[test]
fn batches_that_nobody_takes_are_not_worked_on() {
    let decoded = Arc::new(AtomicUsize::new(0));
    let split = Split::of(Counting {
        images: split(64),
        decoded: Arc::clone(&decoded),
    });
    let preprocessing = Preprocessing::imagenet(INPUT);
    let loader = Loader::new(&split, &preprocessing, INPUT, Device::Cpu, options(4)).unwrap();
    let batches: Vec<Vec<usize>> = (0..10_000).map(|_| (0..64).collect()).collect();
    let mut loading = loader.load(0, &batches);
    assert_eq!(loading.len(), 10_000);
    assert!(loading.next().unwrap().is_ok());
    // The batch that was taken and those ahead of it; the workers come that far by themselves.
    let allowed = (AHEAD + 1) * 64;
    while decoded.load(Ordering::Relaxed) < allowed {
        std::thread::yield_now();
    }
    // Dropping it ends the workers at once, not after ten thousand batches.
    drop(loading);
    assert_eq!(decoded.load(Ordering::Relaxed), allowed);
}

fn write_set(folder: &Path) {
    for (name, contents) in [
        ("a", Some(1)),
        ("b", None),
        ("c", Some(3)),
        ("d", Some(4)),
        ("e", None),
    ] {
        for split in ["train", "val"] {
            let class = folder.join(split).join("cat");
            fs::create_dir_all(&class).unwrap();
            let path = class.join(name).with_extension("png");
            match contents {
                Some(red) => image::RgbImage::from_pixel(9, 9, image::Rgb([red, 0, 0]))
                    .save(path)
                    .unwrap(),
                None => fs::write(path, "broken").unwrap(),
            }
        }
    }
}

#[test]
fn a_corrupt_image_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path());
    let data = crate::data::DataSet::open(Some(folder.path())).unwrap();
    let preprocessing = data.preprocessing(INPUT);
    let loader = Loader::new(&data.train, &preprocessing, INPUT, Device::Cpu, options(2)).unwrap();
    let mut batches = loader.load(0, &[vec![0, 2], vec![3, 1], vec![0, 2]]);
    assert_eq!(batches.next().unwrap().unwrap().indices, [0, 2]);
    let error = batches.next().unwrap().unwrap_err();
    assert!(
        matches!(&error, DataError::Image { name, .. } if name.ends_with("train/cat/b.png")),
        "{error}"
    );
    assert!(batches.next().is_none());
}

#[test]
fn corrupt_images_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path());
    let data = crate::data::DataSet::open(Some(folder.path())).unwrap();
    let skipping = |workers| LoaderOptions {
        skip_corrupt: true,
        ..options(workers)
    };
    let batches = [vec![0, 1, 2], vec![1, 4], vec![3, 4]];
    let expected = load(&data.train, skipping(1), 0, &batches);
    let kept: Vec<_> = expected
        .iter()
        .map(|batch| (batch.indices.clone(), batch.skipped))
        .collect();
    assert_eq!(kept, [(vec![0, 2], 1), (vec![], 2), (vec![3], 1)]);
    assert_eq!(expected[1].images.size(), [0, 3, 8, 8]);
    assert_same(&load(&data.train, skipping(4), 0, &batches), &expected);
    let preprocessing = data.preprocessing(INPUT);
    let loader = Loader::new(&data.train, &preprocessing, INPUT, Device::Cpu, skipping(2)).unwrap();
    assert_eq!(loader.load(0, &batches).count(), 3);
    assert_eq!(loader.corrupt(), 2);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_loaded() {
    let split = split(4);
    let refused = |preprocessing: &Preprocessing, options| {
        Loader::new(&split, preprocessing, INPUT, Device::Cpu, options).unwrap_err()
    };
    let grey = Preprocessing::unit_range(InputShape { channels: 1, ..INPUT });
    assert!(matches!(refused(&grey, options(1)), DataError::Preprocessing(_)));
    let wrong = LoaderOptions {
        augmentation: Augmentation::RandomResizedCrop {
            scale: [0.0, 1.0],
            ratio: [1.0, 1.0],
            flip: false,
        },
        ..options(1)
    };
    assert!(matches!(
        refused(&Preprocessing::imagenet(INPUT), wrong),
        DataError::Augmentation(_)
    ));
}
