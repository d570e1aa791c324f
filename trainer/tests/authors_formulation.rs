//! The baseline of the benchmarks computes the same network as ours, in the authors' way.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[allow(dead_code, reason = "the benchmark draws weights, the test brings its own")]
#[path = "../benches/authors/mod.rs"]
mod authors;
mod support;

use std::collections::HashMap;

use authors::AuthorsNetwork;
use model::{Architecture, Connectivity, Convolution, InputShape};
use support::{relative_error, to_authors};
use tch::{Device, Kind, Tensor, no_grad};
use trainer::network::{Initialisation, Mode, TorchNetwork};

#[test]
fn the_authors_formulation_gives_our_logits() {
    let input = InputShape {
        channels: 3,
        height: 64,
        width: 48,
    };
    for n_first_conv in [0, 1] {
        let connectivity = Connectivity::LocallyConnected { n_first_conv };
        let network = Architecture::resnet18(input, 4, 10, connectivity)
            .network()
            .unwrap();
        tch::manual_seed(1);
        let ours = TorchNetwork::initialise(network.clone(), Initialisation::Random, Device::Cpu).unwrap();
        let local: HashMap<String, Convolution> = network
            .convolutions()
            .filter(|geometry| geometry.locally_connected)
            .map(|geometry| (geometry.weight_name(), geometry.clone()))
            .collect();
        let authors = AuthorsNetwork::new(network, |name, shape| {
            let tensor = ours.store().get(name).detach();
            let tensor = match local.get(name) {
                Some(geometry) => to_authors(&tensor, geometry),
                None => tensor,
            };
            assert_eq!(tensor.size(), shape, "{name}");
            Ok(tensor)
        })
        .unwrap();
        let images = Tensor::randn([3, 3, 64, 48], (Kind::Float, Device::Cpu));
        let expected = no_grad(|| ours.forward(&images, Mode::Evaluation, &mut ())).unwrap();
        let found = no_grad(|| authors.forward(&images, Mode::Evaluation)).unwrap();
        assert!(relative_error(&found, &expected) < 1e-5);
    }
}
