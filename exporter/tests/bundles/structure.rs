//! What a bundle looks like to those who read it.

use std::fs;

use exporter::bundle::Bundle;
use exporter::selection::LayerSelection;
use model::{Architecture, Connectivity};
use proto::onnx::ModelProto;

use crate::support::{Fixture, entries, fixture, input, read_model, small, verify_within};

const LC: Connectivity = Connectivity::LocallyConnected { n_first_conv: 0 };

fn only(names: &[&str]) -> LayerSelection {
    LayerSelection {
        names: Some(names.iter().map(|&name| name.to_owned()).collect()),
        keep_preactivations: false,
    }
}

/// How many nodes of a kind there are that compute no output of the graph.
fn inner(model: &ModelProto, operator: &str) -> usize {
    let graph = model.graph.as_ref().unwrap();
    let is_output = |name: &String| graph.output.iter().any(|output| output.name == *name);
    graph
        .node
        .iter()
        .filter(|node| node.op_type == operator && !node.output.iter().any(is_output))
        .count()
}

/// How many transpositions give an output its layout: those behind which nothing else is computed.
fn of_outputs(model: &ModelProto) -> usize {
    let graph = model.graph.as_ref().unwrap();
    let node = |name: &str| graph.node.iter().find(|node| node.output[0] == name);
    let count = |output: &proto::onnx::ValueInfoProto| {
        let mut value = output.name.as_str();
        let mut transpositions = 0;
        while let Some(node) = node(value) {
            match node.op_type.as_str() {
                "Transpose" => transpositions += 1,
                "Reshape" => {}
                _ => break,
            }
            value = &node.input[0];
        }
        transpositions
    };
    graph.output.iter().map(count).sum()
}

fn external(model: &ModelProto, name: &str) -> Option<[u64; 2]> {
    let graph = model.graph.as_ref().unwrap();
    let tensor = graph.initializer.iter().find(|tensor| tensor.name == name)?;
    let number = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key == key)?;
        Some(entry.value.parse().unwrap())
    };
    Some([number("offset")?, number("length")?])
}

#[test]
fn nothing_is_transposed_between_locally_connected_layers() {
    let cifar = fixture(&Architecture::resnet_cifar(2, input(3, 8, 8), 2, 3, LC), 1);
    let model = read_model(&cifar.export(LayerSelection::default()));
    let (images, pooled) = (2, 1);
    assert_eq!(inner(&model, "Transpose") - of_outputs(&model), images + pooled);
    let resnet18 = fixture(&Architecture::resnet18(input(3, 32, 32), 2, 3, LC), 2);
    let model = read_model(&resnet18.export(LayerSelection::default()));
    assert_eq!(
        inner(&model, "Transpose") - of_outputs(&model),
        images + pooled,
        "max pooling needs no other layout"
    );
    let convolutional = Architecture::resnet_cifar(1, input(3, 8, 8), 2, 3, Connectivity::Convolutional);
    let convolutional = fixture(&convolutional, 3);
    let model = read_model(&convolutional.export(LayerSelection::default()));
    assert_eq!(inner(&model, "Transpose"), 0);
}

#[test]
fn outputs_are_leaves_with_the_layers_names_and_shapes() {
    let fixture = small();
    let path = fixture.export(LayerSelection::default());
    let bundle = Bundle::open(&path).unwrap();
    let graph = bundle.model().graph.as_ref().unwrap();
    let names: Vec<_> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let layers = LayerSelection::default().layers(&fixture.network).unwrap();
    let expected: Vec<_> = layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, expected);
    for node in &graph.node {
        let output = node.output[0].as_str();
        for input in &node.input {
            assert!(
                !names.contains(&input.as_str()) || names.contains(&output),
                "`{output}` is computed from the output `{input}`"
            );
        }
        assert!(names.contains(&output) || output.contains('/'), "{output}");
    }
    assert_eq!(bundle.manifest().layers, layers);
    assert_eq!(bundle.manifest().checkpoint_digest, fixture.checkpoint().digest());
}

#[test]
fn unscaled_weights_are_the_checkpoints_at_page_boundaries() {
    let fixture = small();
    let selection = LayerSelection {
        names: None,
        keep_preactivations: true,
    };
    let path = fixture.export(selection);
    let model = read_model(&path);
    let data = fs::read(path.join("model.onnx.data")).unwrap();
    let checkpoint = fixture.checkpoint();
    let mut compared = 0;
    for convolution in fixture.network.convolutions() {
        let Some([offset, length]) = external(&model, &format!("{}/weights", convolution.name)) else {
            continue;
        };
        assert_eq!(offset % 4096, 0);
        let stored = &data[offset as usize..(offset + length) as usize];
        let tensor = checkpoint.tensor(&convolution.weight_name()).unwrap();
        let (columns, rows) = (convolution.fan_in(), convolution.out_channels);
        // `[K, Cout]` at every position becomes `[Cout, K]`.
        let transposed: Vec<_> = (0..stored.len() / 4)
            .map(|index| {
                let (position, row, column) =
                    (index / columns / rows, index / columns % rows, index % columns);
                (position * columns + column) * rows + row
            })
            .flat_map(|index| &tensor.bytes[4 * index..4 * index + 4])
            .copied()
            .collect();
        assert!(stored == transposed, "{}", convolution.name);
        compared += 1;
    }
    assert_eq!(
        compared,
        fixture.network.convolutions().count() - 1,
        "conv1 is small"
    );
}

#[test]
fn what_no_exported_layer_needs_is_left_out() {
    let fixture = small();
    let recording = fixture.record(|_| ());
    let whole = fixture.export_with_summary(LayerSelection::default());
    let part = fixture.export_with_summary(only(&["layer1", "relu"]));
    assert!(part.bytes < whole.bytes / 2, "{} of {}", part.bytes, whole.bytes);
    let model = read_model(&part.path);
    let graph = model.graph.as_ref().unwrap();
    let weights = graph.initializer.iter().map(|tensor| tensor.name.as_str());
    let weights: Vec<_> = weights.filter(|name| name.ends_with("/weights")).collect();
    assert_eq!(
        weights,
        [
            "conv1/weights",
            "layer1.0.conv1/weights",
            "layer1.0.conv2/weights"
        ]
    );
    let report = verify_within(1e-5, &part.path, &recording).unwrap();
    let compared: Vec<_> = report.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert!(report.passed);
    assert_eq!(compared, ["relu", "layer1"]);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let fixture = small();
    for keep_preactivations in [false, true] {
        let selection = LayerSelection {
            names: None,
            keep_preactivations,
        };
        let (first, second) = (fixture.export(selection.clone()), fixture.export(selection));
        assert_ne!(first, second);
        assert_eq!(entries(&first), ["model.onnx", "model.onnx.data"]);
        for file in entries(&first) {
            assert!(
                fs::read(first.join(&file)).unwrap() == fs::read(second.join(&file)).unwrap(),
                "{file}"
            );
        }
    }
}

#[test]
fn versions_count_up() {
    let fixture: Fixture = small();
    for version in 1..=2 {
        let path = fixture.export(only(&["bn1"]));
        assert_eq!(path, fixture.repository().join(format!("net/{version}")));
    }
    assert_eq!(entries(&fixture.repository().join("net")), ["1", "2"]);
}
