//! Whole networks against the authors' implementation: imported from their checkpoints, evaluated, trained one step.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::collections::BTreeMap;

use model::{Checkpoint, Convolution};
use serde::Deserialize;
use support::{Golden, from_authors, relative_error, to_authors};
use tch::{Device, Kind, Tensor};
use trainer::import::{ImportOptions, ImportPreprocessing, import};
use trainer::network::{Mode, TorchNetwork};
use trainer::recording::activations;
use trainer::training::{Optimizer as TrainingOptimizer, OptimizerOptions};

const NETWORKS: [&str; 3] = [
    "conv_resnet18_w4_s64",
    "lc_resnet18_w2_s64",
    "lc1conv_resnet_cifar_w4_s16",
];

/// Largest error as a fraction of a tensor's largest magnitude.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Description {
    blocks: Vec<usize>,
    width: usize,
    size: usize,
    classes: usize,
    n_first_conv: usize,
    lc: bool,
    optimizer: Optimizer,
}

#[derive(Deserialize)]
struct Optimizer {
    lr: f64,
    weight_decay: f64,
    betas: (f64, f64),
    eps: f64,
}

impl Optimizer {
    fn options(&self) -> OptimizerOptions {
        OptimizerOptions {
            learning_rate: self.lr,
            weight_decay: self.weight_decay,
            betas: self.betas,
            epsilon: self.eps,
            ..OptimizerOptions::default()
        }
    }
}

fn description(name: &str) -> Description {
    serde_json::from_str(&support::text(&format!("{name}.json"))).unwrap()
}

fn imported(name: &str) -> (TorchNetwork, Golden) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("imported.safetensors");
    let description = description(name);
    // Only the convolutional network needs to be told its input size.
    let options = ImportOptions {
        input_size: (!description.lc).then_some((description.size, description.size)),
        preprocessing: ImportPreprocessing::UnitRange,
        class_names: Vec::new(),
    };
    import(&support::path(&format!("{name}.pt")), &output, &options).unwrap();
    let checkpoint = Checkpoint::open(&output).unwrap();
    checkpoint.verify().unwrap();
    let network = TorchNetwork::load(&checkpoint, Device::Cpu).unwrap();
    (network, Golden::open(&format!("{name}.activations.safetensors")))
}

/// A tensor of ours in the authors' layout.
fn comparable(name: &str, tensor: &Tensor, layers: &BTreeMap<String, Convolution>) -> Tensor {
    match layers.get(name) {
        Some(geometry) => to_authors(tensor, geometry),
        None => tensor.shallow_clone(),
    }
}

fn locally_connected(network: &TorchNetwork) -> BTreeMap<String, Convolution> {
    let layers = network
        .network()
        .convolutions()
        .filter(|geometry| geometry.locally_connected);
    layers
        .map(|geometry| (geometry.weight_name(), geometry.clone()))
        .collect()
}

#[test]
fn the_architecture_is_found_out() {
    for name in NETWORKS {
        let description = description(name);
        let (network, _) = imported(name);
        let network = network.network();
        assert_eq!(
            network
                .stages
                .iter()
                .map(|stage| stage.blocks.len())
                .collect::<Vec<_>>(),
            description.blocks
        );
        assert_eq!(network.stem.convolution.out_channels, description.width);
        assert_eq!(
            (network.input.height, network.input.width),
            (description.size, description.size)
        );
        assert_eq!(network.readout.classes, description.classes);
        let shared = network
            .convolutions()
            .take_while(|geometry| !geometry.locally_connected)
            .count();
        let expected = if description.lc {
            description.n_first_conv
        } else {
            network.convolutions().count()
        };
        assert_eq!(shared, expected);
    }
}

#[test]
fn every_activation_is_the_authors() {
    for name in NETWORKS {
        let (network, golden) = imported(name);
        let ours: BTreeMap<String, Tensor> = activations(&network, &golden.tensor("input"))
            .unwrap()
            .into_iter()
            .collect();
        let mut worst = (0.0, String::new());
        for module in golden.names("eval.") {
            // Users know a shortcut's BatchNorm as `downsample`; the logits are `fc`.
            let layer = match module.strip_suffix(".downsample.1") {
                Some(block) => format!("{block}.downsample"),
                None if module == "logits" => "fc".into(),
                None => module.clone(),
            };
            let error = relative_error(&ours[&layer], &golden.tensor(&format!("eval.{module}")));
            assert!(
                error < TOLERANCE,
                "{name}: {module} differs by {error:e} of its largest magnitude"
            );
            if error > worst.0 {
                worst = (error, module);
            }
        }
        println!("{name}: worst activation {} {:e}", worst.1, worst.0);
    }
}

#[test]
fn one_training_step_is_the_authors() {
    for name in NETWORKS {
        let (network, golden) = imported(name);
        let layers = locally_connected(&network);
        let options = description(name).optimizer.options();
        let mut optimizer = TrainingOptimizer::new(network.store(), options).unwrap();

        let logits = network
            .forward(&golden.tensor("input"), Mode::Training, &mut ())
            .unwrap();
        let loss = logits.cross_entropy_for_logits(&golden.tensor("labels"));
        let loss_error = relative_error(&loss.reshape([1]), &golden.tensor("train.loss"));
        assert!(loss_error < 1e-5, "{name}: the loss differs by {loss_error:e}");
        optimizer.zero_gradients().unwrap();
        loss.backward();

        let (mut worst_gradient, mut worst_step) = (0.0_f64, 0.0_f64);
        assert_eq!(
            golden.names("train.grad.").len(),
            network.store().parameters().count()
        );
        for (parameter, tensor) in network.store().parameters() {
            let gradient = comparable(parameter, &tensor.grad(), &layers);
            let error = relative_error(&gradient, &golden.tensor(&format!("train.grad.{parameter}")));
            assert!(
                error < TOLERANCE,
                "{name}: the gradient of {parameter} differs by {error:e}"
            );
            worst_gradient = worst_gradient.max(error);
        }
        optimizer.step().unwrap();
        assert_eq!(
            golden.names("train.after_step.").len(),
            network.store().tensors().count()
        );
        for (parameter, tensor) in network.store().tensors() {
            let after = comparable(parameter, &tensor.detach(), &layers);
            let error = relative_error(&after, &golden.tensor(&format!("train.after_step.{parameter}")));
            assert!(
                error < TOLERANCE,
                "{name}: {parameter} differs by {error:e} after the step"
            );
            worst_step = worst_step.max(error);
        }
        println!(
            "{name}: loss {loss_error:e}, worst gradient {worst_gradient:e}, worst after step {worst_step:e}"
        );
    }
}

#[test]
fn the_optimizer_makes_the_authors_step_of_their_gradients() {
    for name in NETWORKS {
        let (network, golden) = imported(name);
        let layers = locally_connected(&network);
        let mut optimizer =
            TrainingOptimizer::new(network.store(), description(name).optimizer.options()).unwrap();
        for (parameter, tensor) in network.store().parameters() {
            let gradient = golden.tensor(&format!("train.grad.{parameter}"));
            let gradient = if layers.contains_key(parameter) {
                from_authors(&gradient)
            } else {
                gradient
            };
            (tensor * gradient).sum(Kind::Float).backward();
        }
        optimizer.step().unwrap();
        for (parameter, tensor) in network.store().parameters() {
            let after = comparable(parameter, &tensor.detach(), &layers);
            let error = relative_error(&after, &golden.tensor(&format!("train.after_step.{parameter}")));
            assert!(error < 1e-6, "{name}: {parameter} differs by {error:e}");
        }
    }
}
