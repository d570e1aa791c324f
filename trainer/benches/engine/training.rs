//! Whole training steps of a network, sleep phase included.

use anyhow::Result;
use model::{Architecture, Connectivity, InputShape, Network};
use tch::{Device, Kind, TchError, Tensor, nn, no_grad};
use trainer::network::{Initialisation, Mode, TorchNetwork};
use trainer::precision::Precision;
use trainer::training::{Optimizer, OptimizerOptions, Position, SleepPhase, TrainingStep};

use crate::authors::AuthorsNetwork;
use crate::contest::Contest;
use crate::optimizer::tch_optimizer;

const BATCH: i64 = 32;
const CLASSES: i64 = 1000;
/// The sleep phase runs once in so many steps; a run makes as many.
const SLEEP_EVERY: usize = 10;

/// Steps of a fully locally connected ResNet-18 of a quarter of the width, with images of 224 pixels, AdamW and the instant
/// sleep phase.
pub fn training_steps(
    metric: String,
    precision: Precision,
    (repetitions, device): (usize, Device),
) -> Result<Contest> {
    let input = InputShape {
        channels: 3,
        height: 224,
        width: 224,
    };
    let connectivity = Connectivity::LocallyConnected { n_first_conv: 0 };
    let network = Architecture::resnet18(input, 16, CLASSES as usize, connectivity).network()?;
    let theirs = network.clone();
    Ok(Contest {
        metric,
        baseline: "unfold and einsum, tch's AdamW",
        ours: Box::new(move || {
            let network = TorchNetwork::initialise(network, Initialisation::Random, device)?
                .with_training_precision(precision);
            let mut optimizer = Optimizer::new(network.store(), OptimizerOptions::default())?;
            let (images, labels) = batch(device)?;
            Ok(Box::new(move || {
                let step = TrainingStep {
                    network: &network,
                    recompute: false,
                };
                for number in 0..SLEEP_EVERY {
                    let part = std::iter::once(Ok((images.shallow_clone(), labels.shallow_clone())));
                    step.run(part, BATCH as usize, &mut optimizer, None)?;
                    if number == 0 {
                        SleepPhase::Instant.run(&network, 1, Position::default())?;
                    }
                }
                Ok(())
            }))
        }),
        theirs: Box::new(move || {
            let mut baseline = Training::new(theirs, device)?;
            let (images, labels) = batch(device)?;
            Ok(Box::new(move || {
                for number in 0..SLEEP_EVERY {
                    baseline.step(&images, &labels)?;
                    if number == 0 {
                        baseline.sleep()?;
                    }
                }
                Ok(())
            }))
        }),
        steps: SLEEP_EVERY,
        repetitions,
        device,
    })
}

fn batch(device: Device) -> Result<(Tensor, Tensor), TchError> {
    let images = Tensor::f_randn([BATCH, 3, 224, 224], (Kind::Float, device))?;
    let labels = Tensor::f_randint(CLASSES, [BATCH], (Kind::Int64, device))?;
    Ok((images, labels))
}

/// The authors' formulation in training, with tch's own AdamW.
struct Training {
    network: AuthorsNetwork,
    /// Locally connected weights with the size of their windows.
    layers: Vec<(Tensor, i64)>,
    optimizer: nn::Optimizer,
}

impl Training {
    /// With weights like those of a new network of ours.
    fn new(network: Network, device: Device) -> Result<Self, TchError> {
        let variables = nn::VarStore::new(device);
        let mut layers = Vec::new();
        let kernels: Vec<(String, i64)> = network
            .convolutions()
            .filter(|geometry| geometry.locally_connected)
            .map(|geometry| (geometry.weight_name(), geometry.kernel_size as i64))
            .collect();
        let mut network = AuthorsNetwork::draw(network, device)?;
        network.replace_parameters(|name, tensor| {
            // A variable's name has no points.
            let variable = variables.root().f_var_copy(&name.replace('.', "|"), tensor)?;
            if let Some((_, kernel)) = kernels.iter().find(|(layer, _)| layer == name) {
                layers.push((variable.shallow_clone(), *kernel));
            }
            Ok(variable)
        })?;
        let optimizer = tch_optimizer(&variables)?;
        Ok(Self {
            network,
            layers,
            optimizer,
        })
    }

    fn step(&mut self, images: &Tensor, labels: &Tensor) -> Result<(), TchError> {
        let logits = self.network.forward(images, Mode::Training)?;
        let loss = logits.f_cross_entropy_loss::<&Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0)?;
        self.optimizer.zero_grad();
        loss.f_backward()?;
        self.optimizer.step();
        Ok(())
    }

    /// Instant sharing: the mean over every class of positions.
    fn sleep(&self) -> Result<(), TchError> {
        no_grad(|| {
            for (weights, kernel) in &self.layers {
                let size = weights.size();
                for row in 0..*kernel.min(&size[2]) {
                    for column in 0..*kernel.min(&size[3]) {
                        let mut class = weights
                            .f_slice(2, row, None, *kernel)?
                            .f_slice(3, column, None, *kernel)?;
                        let mean = class.f_mean_dim([2, 3].as_slice(), true, None::<Kind>)?;
                        class.f_copy_(&mean)?;
                    }
                }
            }
            Ok(())
        })
    }
}
