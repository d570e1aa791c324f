//! `trainer record --stimuli`: image files become the network's input as the checkpoint says.
#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "a test that can't go on fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{ImageFormat, Rgb, RgbImage};
use model::checkpoint::f32_values;
use model::{
    Architecture, CheckpointHeader, Connectivity, InputShape, Preprocessing, Recording, Resize, checkpoint,
};
use tch::{Device, Tensor};
use trainer::network::{Initialisation, TorchNetwork};
use trainer::recording::activations;

const INPUT: InputShape = InputShape {
    channels: 3,
    height: 8,
    width: 12,
};

/// A small network in a folder of its own.
struct Fixture {
    folder: tempfile::TempDir,
    network: TorchNetwork,
    digest: String,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let lc = Connectivity::LocallyConnected { n_first_conv: 1 };
    let architecture = Architecture::resnet_cifar(1, INPUT, 4, 5, lc);
    tch::manual_seed(1);
    let network = architecture.network().unwrap();
    let network = TorchNetwork::initialise(
        network,
        Initialisation::Convolutional { deviation: 0.3 },
        Device::Cpu,
    )
    .unwrap();
    let header = CheckpointHeader {
        architecture,
        preprocessing: Preprocessing {
            resize: Resize::ShortSide { size: 12 },
            mean: vec![0.5, 0.25, 0.125],
            std: vec![0.5, 0.25, 2.0],
            ..Preprocessing::unit_range(INPUT)
        },
        class_names: Vec::new(),
        provenance: BTreeMap::new(),
    };
    let path = folder.path().join("net.safetensors");
    let digest = checkpoint::write(&path, &header, &network.store().stored()).unwrap();
    Fixture {
        folder,
        network,
        digest,
    }
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn record(&self, options: &[&str]) -> Output {
        let arguments = ["record", "net.safetensors", "--output", "net.recording"];
        Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args(arguments)
            .args(options)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Records; returns the images as the network got them, `[N, C, H, W]`.
    fn recorded(&self, options: &[&str]) -> Vec<Vec<f32>> {
        let output = self.record(options);
        assert!(output.status.success(), "{}", errors(&output));
        let recording = Recording::open(&self.path("net.recording")).unwrap();
        assert_eq!(recording.checkpoint_digest(), self.digest);
        let input = recording.input().unwrap();
        assert_eq!(input.shape[1..], [3, 8, 12]);
        let values: Vec<_> = f32_values(input.bytes).collect();
        values.chunks(3 * 8 * 12).map(<[f32]>::to_vec).collect()
    }

    fn refusal(&self, options: &[&str]) -> String {
        let output = self.record(options);
        assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
        assert!(!self.path("net.recording").exists());
        errors(&output)
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Writes an image of one colour.
fn plain(path: &Path, [width, height]: [u32; 2], color: [u8; 3]) {
    RgbImage::from_pixel(width, height, Rgb(color))
        .save(path)
        .unwrap();
}

/// What an image of one colour is for the network: mean 0.5, 0.25, 0.125, deviation 0.5, 0.25, 2.
fn normalised([red, green, blue]: [u8; 3]) -> Vec<f32> {
    let scale = |value: u8| f64::from(value) / 255.0;
    let channels = [
        (scale(red) - 0.5) / 0.5,
        (scale(green) - 0.25) / 0.25,
        (scale(blue) - 0.125) / 2.0,
    ];
    channels
        .iter()
        .flat_map(|&value| [value as f32; 8 * 12])
        .collect()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let close = |(found, expected): (&f32, &f32)| (found - expected).abs() < 1e-5;
    assert!(found.iter().zip(expected).all(close), "{found:?}");
}

#[test]
fn images_of_files_and_folders_are_preprocessed_in_their_order() {
    let fixture = fixture();
    let folder = fixture.path("images");
    fs::create_dir_all(folder.join("nested.png")).unwrap();
    plain(&folder.join("b.PNG"), [12, 8], [10, 20, 30]);
    plain(&folder.join("a.bmp"), [40, 20], [255, 0, 128]);
    plain(&folder.join("c.tiff"), [9, 33], [0, 255, 64]);
    plain(&folder.join("d.webp"), [12, 12], [1, 2, 3]);
    fs::write(folder.join("notes.txt"), "no image").unwrap();
    // A file that is named is read whatever its name is.
    let file = fs::File::create(fixture.path("first")).unwrap();
    let image = RgbImage::from_pixel(5, 5, Rgb([200, 100, 50]));
    image
        .write_to(&mut std::io::BufWriter::new(file), ImageFormat::Png)
        .unwrap();

    let images = fixture.recorded(&["--stimuli", "first", "images"]);
    let colors = [
        [200, 100, 50],
        [255, 0, 128],
        [10, 20, 30],
        [0, 255, 64],
        [1, 2, 3],
    ];
    assert_eq!(images.len(), colors.len());
    for (image, color) in images.iter().zip(colors) {
        assert_close(image, &normalised(color));
    }
    let two = fixture.recorded(&["--stimuli", "images", "--images", "2"]);
    assert_eq!(two, images[1..3]);
}

#[test]
fn pixels_keep_their_places_and_every_layer_is_recorded() {
    let fixture = fixture();
    // As large as the short side of 12 wants it: the crop takes the 8 middle rows.
    let image = RgbImage::from_fn(12, 12, |x, y| Rgb([x as u8, y as u8, 255]));
    image.save(fixture.path("grid.png")).unwrap();
    let [input] = fixture.recorded(&["--stimuli", "grid.png"]).try_into().unwrap();
    for row in 0..8 {
        for column in 0..12 {
            let place = row * 12 + column;
            let expected = [
                (column as f32 / 255.0 - 0.5) / 0.5,
                ((row + 2) as f32 / 255.0 - 0.25) / 0.25,
            ];
            assert_close(&[input[place], input[96 + place]], &expected);
        }
    }

    let input = Tensor::from_slice(&input).view([1, 3, 8, 12]);
    let recording = Recording::open(&fixture.path("net.recording")).unwrap();
    let layers = recording.layers();
    let expected = activations(&fixture.network, &input).unwrap();
    assert_eq!(layers.len(), expected.len());
    for (name, activation) in expected {
        let found: Vec<_> = f32_values(layers[name.as_str()].bytes).collect();
        let found = Tensor::from_slice(&found).view(activation.size().as_slice());
        assert!(found.allclose(&activation, 1e-5, 1e-6, false), "{name}");
    }
}

#[test]
fn what_can_t_be_used_is_named() {
    let fixture = fixture();
    fs::create_dir(fixture.path("empty")).unwrap();
    fs::write(fixture.path("empty/notes.txt"), "no image").unwrap();
    let errors = fixture.refusal(&["--stimuli", "empty"]);
    assert!(errors.contains("empty holds no image"), "{errors}");
    let errors = fixture.refusal(&["--stimuli", "absent.png"]);
    assert!(errors.contains("can't read absent.png"), "{errors}");
    fs::write(fixture.path("text.png"), "no image").unwrap();
    plain(&fixture.path("good.png"), [12, 8], [0; 3]);
    let errors = fixture.refusal(&["--stimuli", "good.png", "text.png"]);
    assert!(
        errors.contains("can't use text.png") && errors.contains("JPEG, PNG"),
        "{errors}"
    );
    let bytes = fs::read(fixture.path("good.png")).unwrap();
    fs::write(fixture.path("torn.png"), &bytes[..bytes.len() / 2]).unwrap();
    let errors = fixture.refusal(&["--stimuli", "torn.png"]);
    assert!(errors.contains("can't use torn.png"), "{errors}");
    let output = fixture.record(&["--data", "data", "--stimuli", "good.png"]);
    assert_eq!(output.status.code(), Some(2), "{}", self::errors(&output));
}
