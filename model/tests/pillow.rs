//! Images are decoded, resized and cropped as Pillow does it (`tests/pillow/make_golden.py`).
#![cfg(feature = "images")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use model::image::{CropBox, Limits, Pixels, decode};
use model::{ColorMode, InputShape, Preprocessing, Resize};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pillow")
}

fn read(name: &str, color: ColorMode) -> Pixels {
    decode(&fs::read(folder().join(name)).unwrap(), color, Limits::default()).unwrap()
}

/// Mean of the absolute differences, and the share of values that differ by more than 2.
fn difference(found: &Pixels, expected: &Pixels, name: &str) -> (f64, f64) {
    let size = |pixels: &Pixels| (pixels.width, pixels.height, pixels.data.len());
    assert_eq!(size(found), size(expected), "{name}");
    let differences = found.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b));
    let (mut sum, mut large) = (0_u64, 0_u64);
    for difference in differences {
        sum += u64::from(difference);
        large += u64::from(difference > 2);
    }
    let count = expected.data.len() as f64;
    (sum as f64 / count, large as f64 / count)
}

#[test]
fn images_become_the_pixels_of_pillow() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            ["jpeg-", "png-", "webp-", "bmp", "tiff"]
                .iter()
                .any(|start| name.starts_with(start))
        })
        .filter(|name| !name.ends_with(".rgb.png") && !name.ends_with(".l.png"))
        .collect();
    names.sort_unstable();
    assert_eq!(names.len(), 22, "{names:?}");
    let mut beyond = Vec::new();
    for name in names {
        let stem = name.split('.').next().unwrap();
        for (color, suffix) in [(ColorMode::Rgb, "rgb"), (ColorMode::Grayscale, "l")] {
            let expected = read(&format!("{stem}.{suffix}.png"), color);
            let (mean, large) = difference(&read(&name, color), &expected, &name);
            println!(
                "{name} as {suffix}: mean {mean:.3}, beyond 2: {:.2} %",
                large * 100.0
            );
            // A JPEG's cosine transform and the filter for colours of half the resolution are rounded otherwise, most of all
            // at the sharp edges of these images.
            let (most, share) = match name.as_str() {
                "jpeg-444.jpg" | "jpeg-grey.jpg" | "jpeg-cmyk.jpg" => (1.0, 0.001),
                name if name.starts_with("jpeg") => (1.0, 0.01),
                _ => (0.0, 0.0),
            };
            if mean > most || large > share {
                beyond.push(format!("{name} as {suffix}: mean {mean}, beyond 2: {large}"));
            }
        }
    }
    assert!(beyond.is_empty(), "{beyond:#?}");
}

#[test]
fn a_photograph_is_preprocessed_as_torchvision_does_it() {
    let input = InputShape {
        channels: 3,
        height: 56,
        width: 56,
    };
    let preprocessing = Preprocessing::imagenet(input);
    assert_eq!(preprocessing.resize, Resize::ShortSide { size: 64 });
    let expected = read("preprocessed.png", ColorMode::Rgb);
    let found = Pixels {
        data: preprocessing
            .fit(read("photograph.jpg", ColorMode::Rgb), input)
            .unwrap(),
        ..expected
    };
    let expected = read("preprocessed.png", ColorMode::Rgb);
    let (mean, large) = difference(&found, &expected, "photograph.jpg");
    println!("mean {mean:.3}, beyond 2: {:.2} %", large * 100.0);
    assert!(mean <= 1.0 && large <= 0.001, "mean {mean}, beyond 2: {large}");
}

#[test]
fn parts_are_resized_as_pillow_does_it() {
    let image = read("photograph.png", ColorMode::Rgb);
    let expected = read("resizes.png", ColorMode::Rgb);
    let cases: Vec<[u32; 6]> =
        serde_json::from_slice(&fs::read(folder().join("resizes.json")).unwrap()).unwrap();
    let mut place = 0;
    for case in cases {
        let [left, top, part_width, part_height, width, height] = case;
        let part = CropBox {
            left,
            top,
            width: part_width,
            height: part_height,
        };
        let found = image.crop_and_resize(part, width, height).unwrap();
        let expected = expected.window(i64::from(place), 0, width, height);
        let (mean, large) = difference(&found, &expected, &format!("{case:?}"));
        assert!(
            mean <= 1.0 && large <= 0.001,
            "{case:?}: mean {mean}, beyond 2: {large}"
        );
        place += width;
    }
    assert_eq!(place, expected.width);
}
