use super::*;
use model::{ColorMode, Resize};
use proptest::prelude::*;

const INPUT: InputShape = InputShape {
    channels: 3,
    height: 12,
    width: 12,
};

/// Red counts columns, green counts rows, blue is 200.
fn image(width: u32, height: u32) -> Pixels {
    let pixel = |index: u32| [(index % width) as u8, (index / width) as u8, 200];
    Pixels {
        width,
        height,
        color: ColorMode::Rgb,
        data: (0..width * height).flat_map(pixel).collect(),
    }
}

fn draw(index: usize) -> Draw {
    Draw {
        seed: 5,
        epoch: 2,
        index,
    }
}

fn applied(augmentation: Augmentation, image: Pixels, index: usize) -> Vec<u8> {
    let preprocessing = Preprocessing {
        resize: Resize::ShortSide { size: 12 },
        ..Preprocessing::unit_range(INPUT)
    };
    augmentation
        .apply(image, &preprocessing, INPUT, draw(index))
        .unwrap()
}

/// The source's column of the first pixel in a row, and whether columns fall.
fn origin(pixels: &[u8]) -> (u8, u8, bool) {
    (pixels[0], pixels[1], pixels[0] > pixels[3])
}

#[test]
fn none_is_the_preprocessing() {
    assert_eq!(applied(Augmentation::None, image(12, 12), 0), image(12, 12).data);
}

#[test]
fn padded_crops_have_every_place_equally_often() {
    let augmentation = Augmentation::PaddedCrop {
        padding: 1,
        flip: false,
    };
    let mut counts = [[0; 3]; 3];
    for index in 0..9_000 {
        let pixels = applied(augmentation, image(12, 12), index);
        // The image's corner is at (1 − left, 1 − top) of the window; red and green at the window's centre tell them.
        let centre = &pixels[(6 * 12 + 6) * 3..][..2];
        let (left, top) = (usize::from(centre[0]) - 5, usize::from(centre[1]) - 5);
        counts[top][left] += 1;
        assert_eq!(pixels[2] == 0, left == 0 || top == 0, "black outside");
    }
    // A thousand each; the deviation is 30.
    assert!(
        counts
            .as_flattened()
            .iter()
            .all(|count| (850..1_150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn shifts_move_the_centre_both_ways() {
    let augmentation = Augmentation::Shift {
        pixels: 2,
        flip: false,
    };
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..500 {
        // The centre of a wide image begins at column 8.
        let pixels = applied(augmentation, image(28, 12), index);
        let centre = &pixels[(6 * 12 + 6) * 3..][..2];
        seen.insert((i32::from(centre[0]) - 14, i32::from(centre[1]) - 6));
    }
    let all: Vec<(i32, i32)> = (-2..=2).flat_map(|x| (-2..=2).map(move |y| (x, y))).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn half_of_the_images_are_mirrored() {
    let augmentation = Augmentation::PaddedCrop {
        padding: 0,
        flip: true,
    };
    let mirrored = (0..1_000)
        .filter(|&index| origin(&applied(augmentation, image(12, 12), index)).2)
        .count();
    assert!((430..570).contains(&mirrored), "{mirrored}");
    assert_eq!(origin(&applied(augmentation, image(12, 12), 0)).0 % 11, 0);
}

#[test]
fn random_resized_crops_have_the_areas_and_ratios_asked_for() {
    let (mut areas, mut logs) = (0.0, 0.0);
    let count = 4_000;
    for index in 0..count {
        let part = draw_crop(
            (500, 400),
            [0.08, 1.0],
            default_ratio(),
            &mut draw(index).generator(),
        );
        areas += f64::from(part.width) * f64::from(part.height) / 200_000.0;
        logs += (f64::from(part.width) / f64::from(part.height)).ln();
    }
    // torchvision's get_params, followed in NumPy, gives means of 0.4536 and 0.0282; of 4,000 crops their deviations are
    // 0.0036 and 0.0026.
    let (area, log) = (areas / count as f64, logs / count as f64);
    assert!(
        (area - 0.4536).abs() < 0.015 && (log - 0.0282).abs() < 0.011,
        "{area}, {log}"
    );
}

#[test]
fn images_beyond_the_ratios_give_their_centre() {
    let crop = |size| draw_crop(size, [1.0, 1.0], default_ratio(), &mut draw(0).generator());
    // By torchvision's fall-back.
    let wide = CropBox {
        left: 433,
        top: 0,
        width: 133,
        height: 100,
    };
    assert_eq!(crop((1_000, 100)), wide);
    let high = CropBox {
        left: 0,
        top: 433,
        width: 100,
        height: 133,
    };
    assert_eq!(crop((100, 1_000)), high);
    let only = CropBox {
        left: 0,
        top: 0,
        width: 1,
        height: 1,
    };
    assert_eq!(crop((1, 1)), only);
}

#[test]
fn an_image_has_random_numbers_of_its_own() {
    let augmentation = Augmentation::random_resized_crop();
    let one = |draw: Draw| {
        let preprocessing = Preprocessing::unit_range(INPUT);
        augmentation
            .apply(image(60, 50), &preprocessing, INPUT, draw)
            .unwrap()
    };
    let first = draw(3);
    assert_eq!(one(first), one(first));
    for other in [
        Draw { seed: 6, ..first },
        Draw { epoch: 3, ..first },
        Draw { index: 4, ..first },
    ] {
        assert_ne!(one(other), one(first));
    }
}

#[test]
fn the_command_line_and_toml_say_the_same() {
    for (text, toml) in [
        ("none", "kind = \"none\""),
        ("random-resized-crop", "kind = \"random-resized-crop\""),
        (
            "random-resized-crop:scale=0.25..1,no-flip",
            "kind = \"random-resized-crop\"\nscale = [0.25, 1.0]\nflip = false",
        ),
        (
            "padded-crop:4,flip",
            "kind = \"padded-crop\"\npadding = 4\nflip = true",
        ),
        ("shift:3", "kind = \"shift\"\npixels = 3"),
    ] {
        let augmentation: Augmentation = text.parse().unwrap();
        assert_eq!(augmentation, toml::from_str(toml).unwrap(), "{text}");
        assert_eq!(augmentation, augmentation.to_string().parse().unwrap(), "{text}");
        assert_eq!(
            augmentation,
            toml::from_str(&toml::to_string(&augmentation).unwrap()).unwrap()
        );
    }
    for wrong in [
        "",
        "crop",
        "none:flip",
        "padded-crop",
        "padded-crop:-1",
        "padded-crop:4,ratio=1..2",
        "shift:99999",
        "shift:x",
        "random-resized-crop:scale=0..1",
        "random-resized-crop:scale=1..0.5",
        "random-resized-crop:ratio=1..inf",
        "random-resized-crop:scale=0.5..2",
        "random-resized-crop:4",
    ] {
        assert!(wrong.parse::<Augmentation>().is_err(), "{wrong}");
    }
    for wrong in [
        "kind = \"crop\"",
        "kind = \"padded-crop\"",
        "kind = \"shift\"\npixels = 1\npadding = 2",
    ] {
        assert!(toml::from_str::<Augmentation>(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn crops_lie_within_the_image(
        size in (1_u32..400, 1_u32..400), low in 0.01_f64..1.0, ratio in 0.1_f64..1.0, index in any::<usize>(),
    ) {
        let part = draw_crop(size, [low, 1.0], [ratio, 1.0 / ratio], &mut draw(index).generator());
        prop_assert!(part.width >= 1 && part.left + part.width <= size.0);
        prop_assert!(part.height >= 1 && part.top + part.height <= size.1);
    }

    #[test]
    fn the_result_has_the_size_of_the_input(
        size in (1_u32..60, 1_u32..60), kind in 0_usize..4, index in any::<usize>(), pixels in 0_usize..20,
    ) {
        let augmentation = [
            Augmentation::None,
            Augmentation::random_resized_crop(),
            Augmentation::PaddedCrop { padding: pixels, flip: true },
            Augmentation::Shift { pixels, flip: true },
        ][kind];
        prop_assert_eq!(applied(augmentation, image(size.0, size.1), index).len(), 12 * 12 * 3);
    }
}
