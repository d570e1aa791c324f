//! The anti-Hebbian sleep phase against the authors' implementation, and its one pass against iteration by iteration.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use model::Convolution;
use model::network::Resolution;
use support::layers::{Case, cases};
use support::{Golden, from_authors, to_authors};
use tch::{Device, Kind, Tensor};
use trainer::training::{
    AntiHebbian, anti_hebbian_iteration, interior, share_anti_hebbian, share_with_patches, tile,
};

fn geometry(size: usize, channels: (usize, usize), kernel_and_stride: (usize, usize)) -> Convolution {
    let input = Resolution {
        height: size,
        width: size + 1,
    };
    Convolution::new("layer", true, channels, kernel_and_stride, input).unwrap()
}

/// Weights `[H_out, W_out, K, Cout]` in double precision. Small matrices are slower on many threads.
fn random_weights(geometry: &Convolution) -> Tensor {
    tch::set_num_threads(1);
    let shape: Vec<i64> = geometry
        .weight_shape()
        .iter()
        .map(|&length| length as i64)
        .collect();
    Tensor::randn(shape.as_slice(), (Kind::Double, Device::Cpu))
}

fn random_patches(geometry: &Convolution, options: &AntiHebbian) -> Vec<Tensor> {
    let (kernel, channels) = (geometry.kernel_size as i64, geometry.in_channels as i64);
    let size = [options.batch_size as i64, kernel, kernel, channels];
    (0..options.iterations)
        .map(|_| Tensor::randn(size, (Kind::Double, Device::Cpu)))
        .collect()
}

/// The weights of positions whose receptive field touches no padding.
fn inside(weights: &Tensor, geometry: &Convolution) -> Tensor {
    let rows = interior(geometry.input.height, geometry.output.height, geometry);
    let columns = interior(geometry.input.width, geometry.output.width, geometry);
    weights
        .slice(0, rows.0, rows.1, 1)
        .slice(1, columns.0, columns.1, 1)
}

/// Sum of the squared deviations of an inner class's weights from its mean.
fn spread(weights: &Tensor, geometry: &Convolution) -> f64 {
    let kernel = geometry.kernel_size as i64;
    let class = inside(weights, geometry)
        .slice(0, 0, i64::MAX, kernel)
        .slice(1, 0, i64::MAX, kernel);
    let mean = class.mean_dim([0, 1].as_slice(), true, None::<Kind>);
    (class - mean).square().sum(None::<Kind>).double_value(&[])
}

#[test]
fn one_iteration_is_the_authors() {
    let golden = Golden::open("lc_layers.safetensors");
    let options = AntiHebbian {
        learning_rate: 0.1,
        gamma: 1e-2,
        ..AntiHebbian::default()
    };
    let mut compared = 0;
    let mut worst = 0.0_f64;
    let names = golden.names("");
    for (index, case) in cases().iter().enumerate() {
        if !names.contains(&format!("case{index}.hebb.x")) {
            continue;
        }
        let tensor = |name: &str| golden.tensor(&format!("case{index}.hebb.{name}"));
        let geometry = case.geometry();
        let weights = from_authors(&tensor("weights_before"));
        let saved = from_authors(&tensor("saved_weights"));
        anti_hebbian_iteration(&weights, &saved, &tensor("x"), &geometry, &options).unwrap();
        let error = support::relative_error(&to_authors(&weights, &geometry), &tensor("weights_after"));
        assert!(error < 1e-6, "case {index}: {error:e}");
        worst = worst.max(error);
        compared += 1;
    }
    assert_eq!(compared, 4);
    println!("worst relative error: {worst:e}");
}

#[test]
fn one_pass_is_all_iterations() {
    let options = AntiHebbian {
        iterations: 30,
        batch_size: 16,
        learning_rate: 0.1,
        gamma: 0.05,
    };
    let mut worst = 0.0_f64;
    let mut geometries: Vec<_> = cases().iter().map(Case::geometry).collect();
    // Two neurons in a class of one row; a stride that the kernel size divides; a kernel of even size.
    geometries.push(geometry(5, (3, 2), (3, 1)));
    geometries.push(geometry(24, (2, 3), (3, 3)));
    geometries.push(geometry(9, (2, 3), (2, 1)));
    for geometry in &geometries {
        let by_iteration = random_weights(geometry);
        let saved = by_iteration.copy();
        let in_one_pass = by_iteration.copy();
        let patches = random_patches(geometry, &options);
        for patch in &patches {
            let input = tile(patch, geometry).unwrap();
            anti_hebbian_iteration(&by_iteration, &saved, &input, geometry, &options).unwrap();
        }
        let patches = patches.iter().map(|patch| Ok(patch.shallow_clone()));
        share_with_patches(&in_one_pass, patches, geometry, &options).unwrap();
        let error = support::relative_error(&in_one_pass, &by_iteration);
        assert!(error < 1e-12, "{geometry:?}: {error:e}");
        worst = worst.max(error);
    }
    println!("worst relative error: {worst:e}");
}

#[test]
fn weights_become_alike_around_the_same_mean_and_the_border_stays() {
    // 100 iterations take one pass, a single one is done by itself.
    for (iterations, left) in [(100, 1e-3), (1, 0.95)] {
        let options = AntiHebbian {
            iterations,
            ..AntiHebbian::default()
        };
        let geometry = geometry(13, (40, 4), (3, 1));
        let weights = random_weights(&geometry);
        let before = weights.copy();
        share_anti_hebbian(&weights, &geometry, &options).unwrap();
        let rest = spread(&weights, &geometry) / spread(&before, &geometry);
        assert!(
            rest < left,
            "{rest} of the spread is left after {iterations} iterations"
        );

        let mean = |weights: &Tensor| {
            inside(weights, &geometry)
                .slice(0, 0, i64::MAX, 3)
                .slice(1, 0, i64::MAX, 3)
                .mean_dim([0, 1].as_slice(), false, None::<Kind>)
        };
        assert!(support::relative_error(&mean(&weights), &mean(&before)) < 1e-12);
        let (height, width) = (weights.size()[0], weights.size()[1]);
        for (dimension, position) in [(0, 0), (0, height - 1), (1, 0), (1, width - 1)] {
            let side = |weights: &Tensor| weights.select(dimension, position);
            assert_eq!(
                side(&weights),
                side(&before),
                "side {position} of dimension {dimension}"
            );
        }
        assert_ne!(inside(&weights, &geometry), inside(&before, &geometry));
    }
}

#[test]
fn the_largest_learning_rate_divides_what_makes_alike_from_what_drives_apart() {
    let geometry = geometry(6, (255, 8), (1, 1));
    for (factor, alike) in [(0.7, true), (1.4, false)] {
        let mut options = AntiHebbian {
            iterations: 60,
            batch_size: 16,
            gamma: 0.0,
            learning_rate: 1.0,
        };
        options.learning_rate = factor * options.largest_learning_rate(&geometry);
        assert_eq!(options.diverges(&geometry), !alike);
        let weights = random_weights(&geometry);
        let before = spread(&weights, &geometry);
        share_with_patches(
            &weights,
            random_patches(&geometry, &options).into_iter().map(Ok),
            &geometry,
            &options,
        )
        .unwrap();
        let ratio = spread(&weights, &geometry) / before;
        assert_eq!(
            ratio < 1.0,
            alike,
            "the spread is {ratio} of what it was at {factor} of the largest learning rate"
        );
    }
}
