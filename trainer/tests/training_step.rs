//! A training step updates weights in the backward pass, part by part; it must equal the ordinary one, in which all
//! gradients are there before the optimiser sees them.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::sync::Mutex;

use model::{Architecture, Connectivity, InputShape};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use trainer::engine::{Algorithm, Step, Update, update};
use trainer::network::{Initialisation, Mode, TorchNetwork};
use trainer::precision::Precision;
use trainer::training::{LossScale, MomentType, Optimizer, OptimizerOptions, TrainingError, TrainingStep};

const IMAGES: i64 = 12;
const CLASSES: i64 = 3;
const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Tests run at a time, and libtorch's generator is one for all.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Max pooling, downsampling, layers with and without weight sharing.
fn network(seed: i64, n_first_conv: usize) -> TorchNetwork {
    let _generator = GENERATOR.lock();
    tch::manual_seed(seed);
    let input = InputShape {
        channels: 3,
        height: 20,
        width: 18,
    };
    let connectivity = Connectivity::LocallyConnected { n_first_conv };
    let mut architecture = Architecture::resnet18(input, 8, CLASSES as usize, connectivity);
    architecture.blocks = vec![1, 1];
    let network = architecture.network().unwrap();
    TorchNetwork::initialise(network, Initialisation::Random, Device::Cpu).unwrap()
}

fn batch(seed: i64) -> (Tensor, Tensor) {
    let _generator = GENERATOR.lock();
    tch::manual_seed(seed);
    let images = Tensor::randn([IMAGES, 3, 20, 18], FLOAT);
    (
        images,
        Tensor::randint(CLASSES, [IMAGES], (Kind::Int64, Device::Cpu)),
    )
}

type Parts = Vec<Result<(Tensor, Tensor), TrainingError>>;

/// A batch in parts of these sizes.
fn parts((images, labels): &(Tensor, Tensor), sizes: &[i64]) -> Parts {
    let (images, labels) = (
        images.split_with_sizes(sizes, 0),
        labels.split_with_sizes(sizes, 0),
    );
    std::iter::zip(images, labels).map(Ok).collect()
}

/// Gradients are added up by automatic differentiation, then the optimiser updates everything.
fn ordinary_step(network: &TorchNetwork, optimizer: &mut Optimizer, parts: &Parts) -> f64 {
    optimizer.zero_gradients().unwrap();
    let mut total = 0.0;
    for (images, labels) in parts.iter().flatten() {
        let share = images.size()[0] as f64 / IMAGES as f64;
        let logits = network.forward(images, Mode::Training, &mut ()).unwrap();
        let loss =
            logits.cross_entropy_loss::<&Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0) * share;
        total += loss.double_value(&[]);
        loss.backward();
    }
    optimizer.step().unwrap();
    total
}

fn largest_difference(a: &TorchNetwork, b: &TorchNetwork) -> f64 {
    let tensors = a.store().tensors().zip(b.store().tensors());
    tensors.fold(0.0, |largest, ((name, a), (_, b))| {
        let difference = (a.detach() - b.detach()).abs().max().double_value(&[]);
        assert!(difference.is_finite(), "{name}");
        largest.max(difference)
    })
}

/// The largest difference of two networks' tensors after so many steps of both kinds.
fn difference(
    options: OptimizerOptions,
    precision: Precision,
    n_first_conv: usize,
    sizes: &[i64],
    steps: i64,
) -> f64 {
    let ours = network(1, n_first_conv).with_training_precision(precision);
    let theirs = network(1, n_first_conv).with_training_precision(precision);
    let mut our_optimizer = Optimizer::new(ours.store(), options).unwrap();
    let mut their_optimizer = Optimizer::new(theirs.store(), options).unwrap();
    for step in 0..steps {
        let batch = batch(step);
        let network = &ours;
        let loss = TrainingStep {
            network,
            recompute: false,
        }
        .run(
            parts(&batch, sizes).into_iter(),
            IMAGES as usize,
            &mut our_optimizer,
            None,
        )
        .unwrap()
        .loss;
        let expected = ordinary_step(&theirs, &mut their_optimizer, &parts(&batch, sizes));
        assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
    }
    assert_eq!(our_optimizer.steps(), steps as u64);
    let start = network(1, n_first_conv);
    assert!(largest_difference(&ours, &start) > 1e-3, "nothing was trained");
    largest_difference(&ours, &theirs)
}

fn optimizers() -> Vec<OptimizerOptions> {
    let with = |algorithm, momentum, moments| OptimizerOptions {
        algorithm,
        momentum,
        moments,
        learning_rate: 1e-2,
        // Where weight decay cancels a gradient, what is left of it is rounding, which Adam makes a step of full size.
        epsilon: if algorithm == Algorithm::Adam { 1e-5 } else { 1e-8 },
        ..OptimizerOptions::default()
    };
    let algorithms = [
        (Algorithm::AdamW, 0.0),
        (Algorithm::Adam, 0.0),
        (Algorithm::Sgd, 0.0),
        (Algorithm::Sgd, 0.9),
    ];
    let types = [MomentType::Fp32, MomentType::Bf16];
    let all = algorithms
        .into_iter()
        .flat_map(|algorithm| types.map(|moments| (algorithm, moments)));
    all.map(|((algorithm, momentum), moments)| with(algorithm, momentum, moments))
        .collect()
}

#[test]
fn weights_updated_in_the_backward_pass_are_those_of_the_ordinary_step() {
    for options in optimizers() {
        for (precision, n_first_conv) in [(Precision::Fp32, 0), (Precision::Bf16, 0), (Precision::Fp32, 2)] {
            // Both kinds of steps compute the same gradients, bit by bit. Reduced moments go through one kernel in both; the
            // others don't, and what differs in the last bit grows from step to step.
            let reduced = options.moments == MomentType::Bf16 && !options.moment_names().is_empty();
            let (steps, tolerance) = match options.algorithm {
                _ if reduced => (3, 0.0),
                Algorithm::Adam => (1, 1e-5),
                _ => (1, 1e-6),
            };
            let difference = difference(options, precision, n_first_conv, &[IMAGES], steps);
            assert!(
                difference <= tolerance,
                "{options:?}, {precision:?}: {difference:e}"
            );
        }
    }
}

#[test]
fn parts_of_a_batch_add_up() {
    for options in [OptimizerOptions::default(), optimizers()[1]] {
        for precision in [Precision::Fp32, Precision::Bf16] {
            let difference = difference(options, precision, 0, &[4, 6, 2], 3);
            // Adam divides by the gradient's own size: where that is nearly zero, its rounding shows.
            assert!(difference < 1e-3, "{options:?}, {precision:?}: {difference:e}");
        }
    }
}

#[test]
fn activations_computed_again_give_the_same_bits() {
    for n_first_conv in [0, 2] {
        let run = |recompute| {
            let network = network(1, n_first_conv);
            let mut optimizer = Optimizer::new(network.store(), OptimizerOptions::default()).unwrap();
            let step = TrainingStep {
                network: &network,
                recompute,
            };
            for number in 0..3 {
                let parts = parts(&batch(number), &[8, 4]);
                step.run(parts.into_iter(), IMAGES as usize, &mut optimizer, None)
                    .unwrap();
            }
            network
        };
        assert_eq!(
            largest_difference(&run(true), &run(false)),
            0.0,
            "{n_first_conv} convolutions"
        );
    }
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_weights() {
    let network = network(1, 0);
    let mut optimizer = Optimizer::new(network.store(), OptimizerOptions::default()).unwrap();
    let (images, labels) = batch(1);
    let broken = images.copy();
    let _ = broken.get(IMAGES - 1).fill_(f64::NAN);
    let step = TrainingStep {
        network: &network,
        recompute: false,
    };
    let loss = step.run(
        parts(&(broken, labels), &[8, 4]).into_iter(),
        IMAGES as usize,
        &mut optimizer,
        None,
    );
    assert!(loss.unwrap().loss.is_nan());
    let before = self::network(1, 0);
    for (name, weights) in network.store().parameters() {
        assert!(weights.equal(before.store().get(name)), "{name}");
    }
    assert_eq!(optimizer.steps(), 0);
}

#[test]
fn scaled_losses_under_float16_train_as_those_of_float32() {
    let run = |precision, scale: &mut Option<LossScale>| {
        let network = network(1, 1).with_training_precision(precision);
        let mut optimizer = Optimizer::new(network.store(), OptimizerOptions::default()).unwrap();
        let step = TrainingStep {
            network: &network,
            recompute: false,
        };
        let mut losses = Vec::new();
        for _ in 0..20 {
            let parts = parts(&batch(1), &[6, 6]);
            let classified = step
                .run(parts.into_iter(), IMAGES as usize, &mut optimizer, scale.as_mut())
                .unwrap();
            losses.push(classified.loss);
        }
        losses
    };
    let mut scale = Some(LossScale::default());
    let (found, expected) = (run(Precision::Fp16, &mut scale), run(Precision::Fp32, &mut None));
    assert!(
        found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.05),
        "{found:?} {expected:?}"
    );
    assert!(found[19] < 0.6 * found[0], "{found:?}");
}

#[test]
fn a_step_whose_gradients_overflow_is_not_made() {
    let network = network(1, 1).with_training_precision(Precision::Fp16);
    let mut optimizer = Optimizer::new(network.store(), OptimizerOptions::default()).unwrap();
    // No float16 holds a gradient of this scale.
    let mut scale: LossScale = serde_json::from_str(r#"{"factor": 1e30, "steps": 0}"#).unwrap();
    let step = TrainingStep {
        network: &network,
        recompute: false,
    };
    let loss = step.run(
        parts(&batch(1), &[IMAGES]).into_iter(),
        IMAGES as usize,
        &mut optimizer,
        Some(&mut scale),
    );
    assert!(loss.unwrap().loss.is_finite());
    assert_eq!((scale.factor(), optimizer.steps()), (5e29, 0));
    let before = self::network(1, 1);
    for (name, weights) in network.store().parameters() {
        assert!(weights.equal(before.store().get(name)), "{name}");
    }
}

fn step(algorithm: Algorithm, noise: u32) -> Step {
    Step {
        algorithm,
        noise,
        number: 3.0,
        learning_rate: 1e-2,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        momentum: 0.9,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Weights of float64 are updated by libtorch's operations, as on devices whose kernels aren't ours: the same rounding.
    #[test]
    fn reduced_moments_are_rounded_alike_on_all_devices(
        algorithm in prop_oneof![Just(Algorithm::AdamW), Just(Algorithm::Adam), Just(Algorithm::Sgd)],
        count in 1..5000_i64,
        noise in any::<u32>(),
    ) {
        let generator = GENERATOR.lock();
        tch::manual_seed(i64::from(noise));
        let kind = |kind| move |tensor: &Tensor| tensor.to_kind(kind).contiguous();
        let weights = Tensor::randn([count], FLOAT);
        let gradient = Tensor::randn([count], FLOAT);
        let moments = [Tensor::randn([count], FLOAT), Tensor::rand([count], FLOAT)].map(|moment| moment.to_kind(Kind::BFloat16));
        drop(generator);
        let run = |precision| {
            let (weights, gradient) = (kind(precision)(&weights).copy(), kind(precision)(&gradient));
            let [first, second] = moments.each_ref().map(Tensor::copy);
            let adam = algorithm != Algorithm::Sgd;
            let all = Update { step: step(algorithm, noise), first_moment: Some(&first), second_moment: adam.then_some(&second) };
            update(&weights, &gradient, &all).unwrap();
            [weights, first, second].map(|tensor| tensor.to_kind(Kind::Double))
        };
        let (ours, composed) = (run(Kind::Float), run(Kind::Double));
        let error = (&ours[0] - &composed[0]).abs().max().double_value(&[]);
        prop_assert!(error < 1e-6, "weights differ by {error:e}");
        for (ours, composed) in ours[1..].iter().zip(&composed[1..]) {
            // A sum that rounds differently in float32 may fall on the other side of the noise, once in thousands.
            let apart = ours.ne_tensor(composed).to_kind(Kind::Double).sum(Kind::Double).double_value(&[]);
            prop_assert!(apart <= 3.0 + 0.002 * count as f64, "{apart} of {count} moments differ");
            let error = ((ours - composed) / (composed.abs() + 1e-3)).abs().max().double_value(&[]);
            prop_assert!(error < 0.01, "moments differ by {error:e}");
        }
    }
}

/// Rounded to the nearest, a second moment of bfloat16 would never leave where it is: it changes by a thousandth a step.
#[test]
fn small_changes_of_reduced_moments_add_up() {
    let count = 10_000;
    let weights = Tensor::zeros([count], FLOAT);
    let gradient = Tensor::full([count], 2.0, FLOAT);
    let [first, second] = [2.0, 1.0].map(|value| Tensor::full([count], value, (Kind::BFloat16, Device::Cpu)));
    for number in 0..1000 {
        let update_ = Update {
            step: step(Algorithm::AdamW, number * 7919),
            first_moment: Some(&first),
            second_moment: Some(&second),
        };
        update(&weights, &gradient, &update_).unwrap();
    }
    // 4 is where it goes, 3 what is left of the way after n steps of 1 - beta2.
    let expected = 4.0 - 3.0 * 0.999_f64.powi(1000);
    let found = second.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((found - expected).abs() < 0.01, "{found} {expected}");
}
