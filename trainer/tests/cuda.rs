//! A GPU computes what the CPU computes.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use model::{Architecture, Connectivity, InputShape};
use tch::{Cuda, Device, Kind, Tensor, no_grad};
use trainer::network::{Initialisation, TorchNetwork};
use trainer::precision::Precision;
use trainer::training::{LossScale, MomentType, Optimizer, OptimizerOptions, TrainingStep};

const IMAGES: usize = 16;

/// Losses of some steps from the same weights with the same images.
fn losses(device: Device, precision: Precision, moments: MomentType) -> Vec<f64> {
    tch::manual_seed(1);
    let input = InputShape {
        channels: 3,
        height: 32,
        width: 32,
    };
    let connectivity = Connectivity::LocallyConnected { n_first_conv: 1 };
    let network = Architecture::resnet18(input, 8, 10, connectivity)
        .network()
        .unwrap();
    let drawn = TorchNetwork::initialise(network.clone(), Initialisation::Random, Device::Cpu).unwrap();
    let network = TorchNetwork::initialise(network, Initialisation::Random, device)
        .unwrap()
        .with_training_precision(precision);
    // A device's generator draws other numbers.
    for ((_, tensor), (_, value)) in network.store().tensors().zip(drawn.store().tensors()) {
        no_grad(|| tensor.shallow_clone().copy_(value));
    }
    let images = Tensor::randn([IMAGES as i64, 3, 32, 32], (Kind::Float, Device::Cpu)).to_device(device);
    let labels = Tensor::randint(10, [IMAGES as i64], (Kind::Int64, Device::Cpu)).to_device(device);
    let options = OptimizerOptions {
        moments,
        ..OptimizerOptions::default()
    };
    let mut optimizer = Optimizer::new(network.store(), options).unwrap();
    let mut scale = (precision == Precision::Fp16).then(LossScale::default);
    let mut step = |recompute| {
        let part = std::iter::once(Ok((images.shallow_clone(), labels.shallow_clone())));
        TrainingStep {
            network: &network,
            recompute,
        }
        .run(part, IMAGES, &mut optimizer, scale.as_mut())
        .unwrap()
        .loss
    };
    [false, true, false, true].map(&mut step).to_vec()
}

#[test]
fn training_steps_are_those_of_the_cpu() {
    if !Cuda::is_available() {
        println!("skipped: no CUDA device");
        return;
    }
    let expected = losses(Device::Cpu, Precision::Fp32, MomentType::Fp32);
    for (precision, tolerance) in [
        (Precision::Fp32, 0.02),
        (Precision::Bf16, 0.1),
        (Precision::Fp16, 0.1),
    ] {
        for moments in [MomentType::Fp32, MomentType::Bf16] {
            let found = losses(Device::Cuda(0), precision, moments);
            assert!(
                found
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| (a - b).abs() < tolerance),
                "{precision:?}, {moments:?}: {found:?}, on the CPU {expected:?}"
            );
        }
    }
}
