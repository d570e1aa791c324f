//! Every layer of every kind of network is what the formula says.

use exporter::selection::LayerSelection;
use model::{Architecture, Connectivity};

use crate::support::{IMAGES, fixture, input, verify_within};

const TOLERANCE: f64 = 1e-5;

/// Exports with and without BatchNorm folded, and compares every layer.
fn every_layer_is_right(architecture: &Architecture, seed: u64) {
    let fixture = fixture(architecture, seed);
    let recording = fixture.record(|_| ());
    for keep_preactivations in [false, true] {
        let selection = LayerSelection {
            names: None,
            keep_preactivations,
        };
        let expected = selection.layers(&fixture.network).unwrap();
        let report = verify_within(TOLERANCE, &fixture.export(selection), &recording).unwrap();
        assert!(report.passed, "{architecture:?}\n{report}");
        assert_eq!(report.not_recorded, Vec::<String>::new());
        assert_eq!(report.images, IMAGES);
        let compared: Vec<_> = report.layers.iter().map(|layer| layer.name.clone()).collect();
        let expected: Vec<_> = expected.into_iter().map(|layer| layer.name).collect();
        assert_eq!(compared, expected);
    }
}

fn connectivities() -> impl Iterator<Item = Connectivity> {
    (0..=7)
        .map(|n_first_conv| Connectivity::LocallyConnected { n_first_conv })
        .chain([Connectivity::Convolutional])
}

#[test]
fn cifar_family_grey_and_not_square() {
    for (seed, connectivity) in connectivities().enumerate() {
        let architecture = Architecture::resnet_cifar(1, input(1, 10, 7), 3, 4, connectivity);
        every_layer_is_right(&architecture, seed as u64);
    }
}

#[test]
fn every_image_of_many_is_compared() {
    // Some are computed at a time, and the last of these aren't all there.
    const MANY: usize = 37;

    for connectivity in [
        Connectivity::Convolutional,
        Connectivity::LocallyConnected { n_first_conv: 0 },
    ] {
        let architecture = Architecture::resnet_cifar(1, input(1, 8, 8), 2, 3, connectivity);
        let fixture = fixture(&architecture, 8);
        let bundle = fixture.export(LayerSelection::default());
        let recording = fixture.record(|activations| *activations = fixture.activations_of(MANY));
        let report = verify_within(TOLERANCE, &bundle, &recording).unwrap();
        assert!(report.passed && report.images == MANY, "{report}");
        for image in [0, 15, 16, 31, 32, MANY - 1] {
            let recording = fixture.record(|activations| {
                *activations = fixture.activations_of(MANY);
                let (_, last) = activations.last_mut().unwrap();
                last.values[image * 3] += 1.0;
            });
            let report = verify_within(TOLERANCE, &bundle, &recording).unwrap();
            let wrong: Vec<_> = report.layers.iter().filter(|layer| !layer.passed).collect();
            assert!(wrong.len() == 1 && wrong[0].name == "fc", "{image}: {report}");
        }
    }
}

#[test]
fn resnet18_family_in_colour_and_not_square() {
    for (seed, connectivity) in connectivities().enumerate() {
        let mut architecture = Architecture::resnet18(input(3, 21, 30), 2, 5, connectivity);
        architecture.blocks = vec![1, 2];
        every_layer_is_right(&architecture, 100 + seed as u64);
    }
}

#[test]
fn the_whole_resnet18_down_to_one_position() {
    let lc = Connectivity::LocallyConnected { n_first_conv: 1 };
    let architecture = Architecture::resnet18(input(3, 32, 32), 2, 3, lc);
    every_layer_is_right(&architecture, 200);
}

#[test]
fn kernels_of_other_sizes() {
    for (stem, kernel_size) in [(1, 1), (2, 5), (4, 3)] {
        let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
        let mut architecture = Architecture::resnet_cifar(1, input(3, 9, 8), 2, 3, lc);
        architecture.stem.kernel_size = stem;
        architecture.kernel_size = kernel_size;
        every_layer_is_right(&architecture, 300 + stem as u64);
    }
}
