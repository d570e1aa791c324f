//! The engine's locally connected layer against the same layer as tch's operations, for random geometries.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use model::Convolution;
use model::network::Resolution;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, proptest};
use support::relative_error;
use tch::{Device, Kind, Tensor};
use trainer::engine::{Algorithm, Execution, Step, Update, WeightGradient, clear_gradient, has_bf16, update};
use trainer::network::{locally_connected, locally_connected_with};
use trainer::precision::Precision;

#[derive(Clone, Debug)]
struct Case {
    geometry: Convolution,
    images: i64,
    bias: bool,
    /// float32 on the CPU has kernels of its own, other types are computed by libtorch's operations.
    kind: Kind,
}

/// Even and odd kernels, strides larger and smaller than the kernel, images that aren't square.
fn cases() -> impl Strategy<Value = Case> {
    let window = (1..6_usize, 1..4_usize);
    let sizes = (0..7_usize, 0..7_usize, 1..20_usize, 1..20_usize);
    (window, sizes, 1..20_i64, any::<bool>(), any::<bool>()).prop_map(
        |((kernel, stride), (taller, wider, inputs, outputs), images, bias, single)| {
            // No smaller than the kernel less its padding.
            let least = kernel - 2 * ((kernel - 1) / 2);
            let input = Resolution {
                height: least + taller,
                width: least + wider,
            };
            let geometry =
                Convolution::new("layer", true, (inputs, outputs), (kernel, stride), input).unwrap();
            let kind = if single { Kind::Float } else { Kind::Double };
            Case {
                geometry,
                images,
                bias,
                kind,
            }
        },
    )
}

/// The layer as tch's operations: k² strided slices side by side, and a batched matrix product.
fn by_operations(input: &Tensor, weights: &Tensor, bias: Option<&Tensor>, geometry: &Convolution) -> Tensor {
    let (kernel, stride) = (geometry.kernel_size as i64, geometry.stride as i64);
    let (height, width) = (geometry.output.height as i64, geometry.output.width as i64);
    let padding = geometry.padding as i64;
    let padded = input.constant_pad_nd([0, 0, 0, 0, padding, padding, padding, padding]);
    let window = |offset: i64, outputs: i64| (offset, offset + (outputs - 1) * stride + 1);
    let mut slices = Vec::new();
    for row in 0..kernel {
        let (top, bottom) = window(row, height);
        for column in 0..kernel {
            let (left, right) = window(column, width);
            slices.push(padded.slice(0, top, bottom, stride).slice(1, left, right, stride));
        }
    }
    let unfolded = Tensor::cat(&slices, -1);
    let output = unfolded.matmul(weights);
    match bias {
        Some(bias) => output + bias,
        None => output,
    }
}

struct Tensors {
    input: Tensor,
    weights: Tensor,
    bias: Option<Tensor>,
}

impl Tensors {
    fn random(case: &Case) -> Self {
        let geometry = &case.geometry;
        let random = |shape: &[i64]| Tensor::randn(shape, (case.kind, Device::Cpu)).set_requires_grad(true);
        let size = |length: usize| length as i64;
        let (input, output) = (geometry.input, geometry.output);
        Self {
            input: random(&[
                size(input.height),
                size(input.width),
                case.images,
                size(geometry.in_channels),
            ]),
            weights: random(&[
                size(output.height),
                size(output.width),
                size(geometry.fan_in()),
                size(geometry.out_channels),
            ]),
            bias: case.bias.then(|| random(&[size(geometry.out_channels)])),
        }
    }

    /// The nearest numbers that bfloat16 has.
    fn rounded(&self) -> Self {
        let round = |tensor: &Tensor| {
            let rounded = tensor.detach().to_kind(Kind::BFloat16).to_kind(Kind::Float);
            rounded.set_requires_grad(true)
        };
        Self {
            input: round(&self.input),
            weights: round(&self.weights),
            bias: self.bias.as_ref().map(round),
        }
    }

    fn gradients(&self) -> Vec<Tensor> {
        let all = [Some(&self.input), Some(&self.weights), self.bias.as_ref()];
        all.into_iter()
            .flatten()
            .map(|tensor| tensor.grad().copy())
            .collect()
    }

    fn clear(&self) {
        for tensor in [Some(&self.input), Some(&self.weights), self.bias.as_ref()] {
            tensor.map_or(Ok(()), clear_gradient).unwrap();
        }
    }
}

/// Largest absolute difference as a fraction of the expected tensor's largest magnitude, or of a small one's where it is less:
/// what cancels of standard normal factors leaves their rounding.
fn scaled_error(found: &Tensor, expected: &Tensor) -> f64 {
    let largest = |tensor: &Tensor| tensor.abs().max().double_value(&[]);
    largest(&(found - expected)) / largest(expected).max(0.1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn output_and_gradients_are_those_of_the_operations(case in cases(), seed in any::<i64>()) {
        tch::manual_seed(seed);
        let tensors = Tensors::random(&case);
        let Tensors { input, weights, bias } = &tensors;
        let expected = by_operations(input, weights, bias.as_ref(), &case.geometry);
        let upstream = expected.randn_like();
        (&expected * &upstream).sum(case.kind).backward();
        let expected_gradients = tensors.gradients();
        tensors.clear();

        let found = locally_connected(input, weights, bias.as_ref(), &case.geometry).unwrap();
        let found = found.position_major().unwrap();
        (&found * &upstream).sum(case.kind).backward();

        let tolerance = if case.kind == Kind::Double { 1e-12 } else { 1e-5 };
        let error = scaled_error(&found.detach(), &expected.detach());
        prop_assert!(error < tolerance, "the output differs by {error:e}");
        for (name, (found, expected)) in
            ["input", "weights", "bias"].iter().zip(tensors.gradients().iter().zip(&expected_gradients))
        {
            let error = scaled_error(found, expected);
            prop_assert!(error < tolerance, "the gradient of the {name} differs by {error:e}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random numbers that bfloat16 holds exactly have products that float32 holds exactly: only the order of the sums
    /// differs, and the upstream gradient too is such a number.
    #[test]
    fn bf16_rounds_nothing_but_the_factors(case in cases(), seed in any::<i64>()) {
        tch::manual_seed(seed);
        let case = Case { kind: Kind::Float, ..case };
        let tensors = Tensors::random(&case).rounded();
        let Tensors { input, weights, bias } = &tensors;
        let expected = locally_connected(input, weights, bias.as_ref(), &case.geometry).unwrap();
        let expected = expected.position_major().unwrap();
        let upstream = expected.randn_like().to_kind(Kind::BFloat16).to_kind(Kind::Float);
        (&expected * &upstream).sum(Kind::Float).backward();
        let expected_gradients = tensors.gradients();
        tensors.clear();

        let execution = Execution { precision: Precision::Bf16, ..Execution::default() };
        let found = locally_connected_with(input, weights, bias.as_ref(), &case.geometry, execution).unwrap();
        let found = found.position_major().unwrap();
        prop_assert!(found.kind() == Kind::Float);
        (&found * &upstream).sum(Kind::Float).backward();

        let tolerance = 1e-5;
        let error = scaled_error(&found.detach(), &expected.detach());
        prop_assert!(error < tolerance, "the output differs by {error:e}");
        for (name, (found, expected)) in
            ["input", "weights", "bias"].iter().zip(tensors.gradients().iter().zip(&expected_gradients))
        {
            let error = scaled_error(found, expected);
            prop_assert!(error < tolerance, "the gradient of the {name} differs by {error:e}");
        }
    }
}

#[test]
fn bf16_rounds_the_factors_where_the_processor_has_it() {
    let (geometry, tensors) = example();
    let rounded = tensors.rounded();
    let execution = Execution {
        precision: Precision::Bf16,
        ..Execution::default()
    };
    let output = |tensors: &Tensors, execution: Execution<'_>| {
        let output =
            locally_connected_with(&tensors.input, &tensors.weights, None, &geometry, execution).unwrap();
        output.position_major().unwrap().detach()
    };
    let found = output(&tensors, execution);
    let (of_rounded, exact) = (
        output(&rounded, Execution::default()),
        output(&tensors, Execution::default()),
    );
    let (same, other) = if has_bf16(Device::Cpu) {
        (of_rounded, exact)
    } else {
        (exact, of_rounded)
    };
    assert!(relative_error(&found, &same) < 1e-5);
    assert!(relative_error(&found, &other) > 1e-4);
}

/// How a layer is computed whose gradient goes into `memory`.
fn into(memory: &Tensor) -> Execution<'_> {
    Execution {
        gradient: WeightGradient::Kept(Some(memory)),
        ..Execution::default()
    }
}

fn example() -> (Convolution, Tensors) {
    let input = Resolution { height: 6, width: 5 };
    let geometry = Convolution::new("layer", true, (16, 8), (3, 1), input).unwrap();
    let case = Case {
        geometry: geometry.clone(),
        images: 4,
        bias: false,
        kind: Kind::Float,
    };
    (geometry, Tensors::random(&case))
}

#[test]
fn the_gradient_is_written_into_the_memory_that_is_kept() {
    let (geometry, tensors) = example();
    let Tensors { input, weights, .. } = &tensors;
    let memory = weights.detach().empty_like();
    let backward = || {
        let output = locally_connected_with(input, weights, None, &geometry, into(&memory)).unwrap();
        output.position_major().unwrap().sum(Kind::Float).backward();
    };
    backward();
    assert_eq!(weights.grad().data_ptr(), memory.data_ptr());
    let first = weights.grad().copy();

    // A second pass without clearing adds up, although the memory is in use.
    backward();
    assert!(relative_error(&weights.grad(), &(&first * 2.0)) < 1e-6);

    clear_gradient(weights).unwrap();
    assert!(!weights.grad().defined());
    backward();
    assert_eq!(weights.grad().data_ptr(), memory.data_ptr());
    assert!(weights.grad().equal(&first));
}

#[test]
fn weights_that_are_used_twice_get_both_gradients() {
    let (geometry, tensors) = example();
    let Tensors { input, weights, .. } = &tensors;
    let memory = weights.detach().empty_like();
    let run = |input: &Tensor| {
        let output = locally_connected_with(input, weights, None, &geometry, into(&memory)).unwrap();
        output.position_major().unwrap().sum(Kind::Float)
    };
    let other = input.detach().randn_like();
    (run(input) + run(&other)).backward();
    let found = weights.grad().copy();
    clear_gradient(weights).unwrap();
    run(&(input + &other)).backward();
    assert!(relative_error(&found, &weights.grad()) < 1e-5);
}

#[test]
fn a_backward_pass_gives_no_gradient_that_nobody_needs() {
    let (geometry, tensors) = example();
    let input = tensors.input.detach();
    let output = locally_connected(&input, &tensors.weights, None, &geometry).unwrap();
    output.position_major().unwrap().sum(Kind::Float).backward();
    assert!(!input.grad().defined());
    assert!(tensors.weights.grad().defined());
}

#[test]
fn what_does_not_fit_is_refused() {
    let (geometry, tensors) = example();
    let Tensors { input, weights, .. } = &tensors;
    let message =
        |result: Result<trainer::network::Activation, tch::TchError>| result.unwrap_err().to_string();
    let narrow = input.narrow(3, 0, 8);
    let said = message(locally_connected(&narrow, weights, None, &geometry));
    assert!(
        said.contains("[6, 5, 144, 8] don't fit an input [6, 5, 4, 8]"),
        "{said}"
    );
    let double = input.to_kind(Kind::Double);
    let said = message(locally_connected(&double, weights, None, &geometry));
    assert!(said.contains("type or device"), "{said}");
    let bias = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    let said = message(locally_connected(input, weights, Some(&bias), &geometry));
    assert!(said.contains("one value per output channel"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a gradient is used, it is the one that would be kept.
    #[test]
    fn gradients_that_are_stored_or_applied_are_those_that_would_be_kept(
        case in cases(), reduced in any::<bool>(), half in any::<bool>(), seed in any::<i64>()
    ) {
        tch::manual_seed(seed);
        let precision = if half && case.kind == Kind::Float { Precision::Fp16 } else { Precision::Fp32 };
        let Tensors { input, weights, .. } = Tensors::random(&Case { bias: false, ..case.clone() });
        let run = |gradient: WeightGradient<'_>| {
            let execution = Execution { gradient, precision };
            let output = locally_connected_with(&input, &weights, None, &case.geometry, execution).unwrap();
            output.position_major().unwrap().sum(case.kind).backward();
        };
        run(WeightGradient::Kept(None));
        let expected = weights.grad().copy();
        clear_gradient(&weights).unwrap();

        let memory = weights.detach().randn_like();
        let before = memory.copy();
        run(WeightGradient::Stored { memory: &memory, add: true });
        prop_assert!(relative_error(&memory, &(&before + &expected)) < 1e-5);
        run(WeightGradient::Stored { memory: &memory, add: false });
        prop_assert!(memory.equal(&expected));
        prop_assert!(!weights.grad().defined());

        let kind = if reduced { Kind::BFloat16 } else { case.kind };
        let moments = || Tensor::zeros(weights.size(), (kind, Device::Cpu));
        let (first, second, other_first, other_second) = (moments(), moments(), moments(), moments());
        let step = Step {
            algorithm: Algorithm::AdamW,
            noise: 7,
            number: 1.0,
            learning_rate: 0.1,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum: 0.0,
        };
        let of = |first_moment, second_moment| Update {
            step,
            first_moment: Some(first_moment),
            second_moment: Some(second_moment),
        };
        let expected_weights = weights.detach().copy();
        update(&expected_weights, &expected, &of(&first, &second)).unwrap();
        run(WeightGradient::Applied { update: of(&other_first, &other_second), stored: None });
        prop_assert!(!weights.grad().defined());
        prop_assert!(relative_error(&weights.detach(), &expected_weights) < 1e-6);
        prop_assert!(relative_error(&other_second.to_kind(case.kind), &second.to_kind(case.kind)) < 1e-2);
    }
}

/// Wide windows and many images go other ways through the processor's caches.
#[test]
fn large_layers_are_those_of_the_operations() {
    let input = Resolution { height: 5, width: 4 };
    let case = Case {
        geometry: Convolution::new("layer", true, (64, 256), (3, 1), input).unwrap(),
        images: 48,
        bias: false,
        kind: Kind::Float,
    };
    let tensors = Tensors::random(&case).rounded();
    let Tensors { input, weights, .. } = &tensors;
    let expected = by_operations(input, weights, None, &case.geometry);
    let upstream = expected.randn_like().to_kind(Kind::BFloat16).to_kind(Kind::Float);
    (&expected * &upstream).sum(Kind::Float).backward();
    let expected_gradients = tensors.gradients();
    for precision in [Precision::Fp32, Precision::Bf16] {
        tensors.clear();
        let execution = Execution {
            precision,
            ..Execution::default()
        };
        let found = locally_connected_with(input, weights, None, &case.geometry, execution).unwrap();
        let found = found.position_major().unwrap();
        (&found * &upstream).sum(Kind::Float).backward();
        assert!(relative_error(&found.detach(), &expected.detach()) < 1e-5);
        for (found, expected) in tensors.gradients().iter().zip(&expected_gradients) {
            assert!(relative_error(found, expected) < 1e-5, "{precision:?}");
        }
    }
}
