use super::*;
use image::{ImageFormat, Rgb, RgbImage};
use model::image::ImageError;

/// Writes an image whose red is `red`.
fn write_image(path: PathBuf, red: u8, (width, height): (u32, u32)) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = RgbImage::from_pixel(width, height, Rgb([red, 0, 0]));
    // Whatever the name says, the contents are told by their first bytes.
    image.save_with_format(path, ImageFormat::Png).unwrap();
}

fn said(folder: &Path) -> String {
    open(folder).unwrap_err().to_string()
}

fn reds(split: &Split) -> Vec<(usize, u8)> {
    (0..split.len())
        .map(|index| {
            (
                split.label(index),
                split.image(index, ColorMode::Rgb).unwrap().data[0],
            )
        })
        .collect()
}

#[test]
fn classes_are_the_folders() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(at("train/dog/b.JPEG"), 3, (4, 4));
    write_image(at("train/dog/a.png"), 2, (4, 4));
    write_image(at("train/cat/inner/c.png"), 1, (4, 4));
    write_image(at("train/.cache/x.png"), 9, (4, 4));
    write_image(at("train/cat/._c.png"), 9, (4, 4));
    fs::write(at("train/cat/notes.txt"), "no image").unwrap();
    write_image(at("val/dog/d.png"), 4, (4, 4));
    let data = open(folder.path()).unwrap();
    assert_eq!(data.kind, DataSetKind::ImageFolder);
    assert_eq!(data.class_names, ["cat", "dog"]);
    assert_eq!(reds(&data.train), [(0, 1), (1, 2), (1, 3)]);
    assert_eq!(reds(&data.test), [(1, 4)]);
    assert!(data.train.name(2).ends_with("train/dog/b.JPEG"));
    let NativeSize::Uniform(shape) = data.native() else {
        panic!("sizes are alike")
    };
    assert_eq!((shape.channels, shape.height, shape.width), (3, 4, 4));
    write_image(at("train/dog/e.png"), 3, (5, 4));
    let data = open(folder.path()).unwrap();
    assert_eq!(data.native(), NativeSize::Varied);
    assert_eq!(data.default_input().height, 224);
}

#[test]
fn wordnet_ids_become_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for split in ["train", "val"] {
        for id in ["n01440764", "n15075141"] {
            write_image(at(split).join(id).join("0.JPEG"), 0, (2, 2));
        }
    }
    let names = || open(folder.path()).unwrap().class_names;
    assert_eq!(names()[0], "tench, Tinca tinca");
    write_image(at("train/n99999999/0.JPEG"), 0, (2, 2));
    assert_eq!(names(), ["n01440764", "n15075141", "n99999999"]);
    fs::write(at("words.txt"), "n99999999\tunheard of\nn00000001\tother\n").unwrap();
    assert_eq!(names()[2], "unheard of");
}

#[test]
fn tiny_imagenet_has_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(at("train/n01440764/images/n01440764_0.JPEG"), 1, (64, 64));
    fs::write(
        at("train/n01440764/n01440764_boxes.txt"),
        "n01440764_0.JPEG\t0\t0\t1\t1\n",
    )
    .unwrap();
    write_image(at("train/n01443537/images/n01443537_0.JPEG"), 2, (64, 64));
    write_image(at("val/images/val_0.JPEG"), 3, (64, 64));
    write_image(at("val/images/val_1.JPEG"), 4, (64, 64));
    write_image(at("test/images/test_0.JPEG"), 9, (64, 64));
    let table = "val_1.JPEG\tn01440764\t0\t32\t44\t62\nval_0.JPEG\tn01443537\t52\t55\t57\t59\n";
    fs::write(at("val/val_annotations.txt"), table).unwrap();
    let data = open(folder.path()).unwrap();
    assert_eq!(data.kind, DataSetKind::TinyImageNet);
    assert_eq!(
        (data.class_names[1].as_str(), data.class_names.len()),
        ("goldfish, Carassius auratus", 2)
    );
    assert_eq!(reds(&data.train), [(0, 1), (1, 2)]);
    assert_eq!(reds(&data.test), [(0, 4), (1, 3)]);
    // Crops of 48 pixels are crops: the images keep their size.
    let input = model::InputShape {
        channels: 3,
        height: 48,
        width: 48,
    };
    assert_eq!(
        data.preprocessing(input).resize,
        model::Resize::ShortSide { size: 64 }
    );
    fs::write(at("val/val_annotations.txt"), "val_1.JPEG\tn99999999\n").unwrap();
    assert!(said(folder.path()).contains("line 1: n99999999 is no class"));
    fs::write(at("val/val_annotations.txt"), "\n../../x.JPEG\tn01440764\n").unwrap();
    assert!(said(folder.path()).contains("line 2: \"../../x.JPEG\" is no name of a file"));
    fs::write(at("val/val_annotations.txt"), "val_1.JPEG n01440764").unwrap();
    assert!(said(folder.path()).contains("a tab and a class are expected"));
}

#[test]
fn what_is_missing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(at("train/cat/0.png"), 0, (2, 2));
    assert!(said(folder.path()).contains("neither val/ nor test/"));
    for image in 0..3 {
        write_image(at(&format!("val/ILSVRC2012_val_{image}.JPEG")), 0, (2, 2));
    }
    let flat = said(folder.path());
    assert!(
        flat.contains("holds 3 images without folders of classes") && flat.contains("valprep.sh"),
        "{flat}"
    );
    write_image(at("val/dog/0.png"), 0, (2, 2));
    let unknown = said(folder.path());
    assert!(
        unknown.contains("val/dog is no class") && unknown.contains("such as cat"),
        "{unknown}"
    );
    fs::create_dir_all(at("train/dog")).unwrap();
    assert!(said(folder.path()).contains("train/dog has no images"));
    fs::remove_dir_all(at("train")).unwrap();
    fs::create_dir_all(at("train")).unwrap();
    assert!(said(folder.path()).contains("no folders of classes and no images"));
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_back_ends() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(at("train/cat/0.png"), 0, (2, 2));
    write_image(at("val/cat/0.png"), 0, (2, 2));
    std::os::unix::fs::symlink(at("train/cat"), at("train/cat/back")).unwrap();
    assert!(said(folder.path()).contains("a link leads back"));
}

#[test]
fn broken_empty_huge_and_hostile_images_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(at("train/cat/good.png"), 7, (6, 5));
    write_image(at("val/cat/good.png"), 7, (6, 5));
    let good = fs::read(at("train/cat/good.png")).unwrap();
    fs::write(at("train/cat/empty.jpg"), b"").unwrap();
    fs::write(at("train/cat/text.jpg"), "I'm no image").unwrap();
    fs::write(at("train/cat/truncated.png"), &good[..good.len() - 20]).unwrap();
    let mut bomb = good.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 200, 0, 0, 0, 200, 0]);
    fs::write(at("train/cat/bomb.png"), bomb).unwrap();
    // A hole of 1 GiB, which takes no room on the disk.
    let huge = fs::File::create(at("train/cat/huge.png")).unwrap();
    huge.set_len(1 << 30).unwrap();
    let data = open(folder.path()).unwrap();
    assert_eq!(data.train.len(), 6);
    let mut reasons = BTreeMap::new();
    for index in 0..data.train.len() {
        if let Err(DataError::Image { name, source }) = data.train.image(index, ColorMode::Rgb) {
            let name = Path::new(&name).file_stem().unwrap().to_str().unwrap().to_owned();
            reasons.insert(name, source);
        }
    }
    assert_eq!(reasons.len(), 5);
    assert!(
        matches!(
            reasons["huge"],
            ImageError::TooManyBytes {
                found: 0x4000_0000,
                ..
            }
        ),
        "{reasons:?}"
    );
    assert!(
        matches!(reasons["empty"], ImageError::UnknownFormat),
        "{reasons:?}"
    );
    assert!(
        matches!(reasons["text"], ImageError::UnknownFormat),
        "{reasons:?}"
    );
    let found = data.inspect(2, |_| {});
    assert_eq!(
        (
            found.unreadable(),
            found.splits[0].images,
            found.splits[0].formats["PNG"]
        ),
        (5, 6, 1)
    );
    assert!(
        found.splits[0].unreadable[0]
            .image
            .ends_with("train/cat/bomb.png")
    );
}
