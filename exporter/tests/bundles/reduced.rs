//! Bundles with weights of reduced precision.

use exporter::ExportError;
use exporter::selection::LayerSelection;
use model::{Architecture, Connectivity, WeightType};
use proto::onnx::tensor_proto::DataType;

use crate::support::{Fixture, entries, fixture, input, read_model, verify_within};

fn networks() -> [Fixture; 2] {
    let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
    let mixed = Connectivity::LocallyConnected { n_first_conv: 2 };
    let mut resnet18 = Architecture::resnet18(input(3, 21, 30), 2, 5, lc);
    resnet18.blocks = vec![1, 2];
    [
        fixture(&resnet18, 1),
        fixture(&Architecture::resnet_cifar(1, input(1, 10, 7), 3, 4, mixed), 2),
    ]
}

fn export(fixture: &Fixture, weights: WeightType, keep_preactivations: bool) -> std::path::PathBuf {
    let mut request = fixture.request(LayerSelection {
        names: None,
        keep_preactivations,
    });
    request.weights = weights;
    exporter::export::export(&request, &mut |_| std::ops::ControlFlow::Continue(()))
        .unwrap()
        .path
}

#[test]
fn every_layer_is_right_within_the_rounding_of_the_weights() {
    // Half the distance between neighbours, relative to a number: what a single weight loses.
    for (weights, rounding) in [
        (WeightType::Fp16, 2.0_f64.powi(-11)),
        (WeightType::Bf16, 2.0_f64.powi(-8)),
    ] {
        for fixture in networks() {
            let recording = fixture.record(|_| ());
            for keep_preactivations in [false, true] {
                let bundle = export(&fixture, weights, keep_preactivations);
                let report = verify_within(4.0 * rounding, &bundle, &recording).unwrap();
                assert!(report.passed, "{weights:?}\n{report}");
                assert_eq!(report.not_recorded, Vec::<String>::new());
                let first = report.layers[0].relative_error;
                assert!(first > rounding / 100.0, "{weights:?} rounds nothing: {first:e}");
            }
        }
    }
}

#[test]
fn weights_take_half_the_bytes_and_users_get_single_precision() {
    let [fixture, _] = networks();
    let size = |weights| {
        let bundle = export(&fixture, weights, false);
        std::fs::metadata(bundle.join("model.onnx.data")).unwrap().len() as f64
    };
    let full = size(WeightType::Fp32);
    for (weights, stored) in [
        (WeightType::Fp16, DataType::Float16),
        (WeightType::Bf16, DataType::Bfloat16),
    ] {
        let share = size(weights) / full;
        assert!((0.45..0.6).contains(&share), "{share}");
        let graph = read_model(&export(&fixture, weights, false)).graph.unwrap();
        let tensor = graph
            .initializer
            .iter()
            .find(|tensor| tensor.name == "layer1.0.conv1/weights")
            .unwrap();
        assert_eq!(tensor.data_type, i32::from(stored));
        for value in graph.input.iter().chain(&graph.output) {
            let Some(proto::onnx::type_proto::Value::TensorType(tensor)) =
                value.r#type.as_ref().and_then(|value| value.value.as_ref())
            else {
                panic!("{} has no type", value.name);
            };
            assert_eq!(tensor.elem_type, i32::from(DataType::Float), "{}", value.name);
        }
    }
}

#[test]
fn weights_beyond_half_precision_are_refused_and_leave_nothing() {
    let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
    let architecture = Architecture::resnet_cifar(1, input(3, 8, 8), 4, 5, lc);
    let fixture = crate::support::fixture_with(&architecture, 1, |tensors| {
        tensors.get_mut("layer2.0.conv1.weights").unwrap()[7] = 1e6;
    });
    let mut request = fixture.request(LayerSelection {
        names: None,
        keep_preactivations: true,
    });
    request.weights = WeightType::Fp16;
    let error = exporter::export::export(&request, &mut |_| std::ops::ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, ExportError::Weight { .. }));
    let error = error.to_string();
    assert!(
        error.contains("`layer2.0.conv1/weights`") && error.contains("65504") && error.contains("bf16"),
        "{error}"
    );
    assert_eq!(entries(fixture.folder()), ["net.safetensors"]);
}
