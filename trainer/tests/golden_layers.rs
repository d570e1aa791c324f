//! Single locally connected layers against the authors' implementation: outputs, gradients, sharing, SNR.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use support::layers::cases;
use support::{Golden, from_authors, to_authors};
use tch::Tensor;
use trainer::network::{Activation, locally_connected};
use trainer::training::{interior, layer_snr, share_instantly};

#[test]
fn outputs_and_gradients_are_the_authors() {
    let golden = Golden::open("lc_layers.safetensors");
    let mut worst = 0.0_f64;
    for (index, case) in cases().iter().enumerate() {
        let tensor = |name: &str| golden.tensor(&format!("case{index}.{name}"));
        let geometry = case.geometry();
        let x = tensor("x").set_requires_grad(true);
        let weights = from_authors(&tensor("weights")).set_requires_grad(true);
        let bias = case.bias.then(|| tensor("bias").set_requires_grad(true));
        let input = Activation::nchw(x.shallow_clone()).position_major().unwrap();
        let output = locally_connected(&input, &weights, bias.as_ref(), &geometry).unwrap();
        let y = output.channels_first().unwrap();
        (&y * tensor("grad_y")).sum(tch::Kind::Float).backward();

        let mut compared = vec![
            ("y", y),
            ("grad_x", x.grad()),
            ("grad_weights", to_authors(&weights.grad(), &geometry)),
        ];
        compared.extend(bias.map(|bias| ("grad_bias", bias.grad())));
        for (name, found) in compared {
            let error = support::relative_error(&found, &tensor(name));
            assert!(
                error < 1e-5,
                "case {index}: {name} differs by {error:e} of its largest magnitude"
            );
            worst = worst.max(error);
        }
    }
    println!("worst relative error: {worst:e}");
}

#[test]
fn instant_sharing_is_the_authors() {
    let golden = Golden::open("lc_layers.safetensors");
    for (index, case) in cases().iter().enumerate() {
        let weights = from_authors(&golden.tensor(&format!("case{index}.weights")));
        share_instantly(&weights, case.kernel_size).unwrap();
        let shared = to_authors(&weights, &case.geometry());
        let error = support::relative_error(&shared, &golden.tensor(&format!("case{index}.shared.weights")));
        assert!(error < 1e-6, "case {index}: {error:e}");
    }
}

#[test]
fn the_snr_of_weights_is_the_authors() {
    let golden = Golden::open("lc_layers.safetensors");
    for (index, case) in cases().iter().enumerate() {
        let geometry = case.geometry();
        let (rows, columns) = (
            interior(geometry.input.height, geometry.output.height, &geometry),
            interior(geometry.input.width, geometry.output.width, &geometry),
        );
        let border = &case.border;
        assert_eq!(
            (rows, columns),
            ((border.top, border.bottom), (border.left, border.right)),
            "case {index}"
        );
        for (name, expected) in [
            ("weights", case.snr_before),
            ("shared.weights", case.snr_after_instant_sharing),
        ] {
            let weights: Tensor = from_authors(&golden.tensor(&format!("case{index}.{name}")));
            let snr = layer_snr(&weights, &geometry).unwrap();
            // Equal weights have no deviation but that of rounding, and then only the magnitude means something.
            let alike = if expected > 1e6 {
                snr > 1e6
            } else {
                (snr / expected - 1.0).abs() < 1e-5
            };
            assert!(
                alike,
                "case {index}: the SNR of {name} is {snr}, expected {expected}"
            );
        }
    }
}
