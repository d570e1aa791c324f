//! Writes small bundles: graphs that can be computed by hand, with real manifests and weights in a file of their own.
//!
//! The network takes `[N, 1, 4, 4]` and gives
//! - `relu` `[N, 2, 4, 4]`: `max(0, SCALE[c] · x)`,
//! - `layer1` `[N, 2, 4, 4]`: `relu + OFFSET`,
//! - `fc` `[N, 3]`: `flatten(layer1) · weight + BIAS`, see [`weight`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::manifest::{FORMAT_VERSION, INPUT_NAME, METADATA_KEY};
use model::{Architecture, Connectivity, InputShape, Manifest, Preprocessing, WeightType};
use prost::Message as _;
use proto::onnx::attribute_proto::AttributeType;
use proto::onnx::tensor_proto::{DataLocation, DataType};
use proto::onnx::tensor_shape_proto::{Dimension, dimension};
use proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use super::to_bytes;

pub const DATA_FILE: &str = "model.onnx.data";
pub const SCALE: [f32; 2] = [1.0, -2.0];
pub const OFFSET: f32 = 0.5;
pub const BIAS: [f32; 3] = [0.25, -1.0, 3.0];
pub const CLASSES: [&str; 3] = ["T-shirt", "Ankle boot", "Bag"];
pub const DIGEST: &str = "blake3:0123456789abcdef";

/// Weight of the readout from feature `k` (of 32) to class `j`.
pub fn weight(k: usize, j: usize) -> f32 {
    ((k * 3 + j) % 5) as f32 * 0.25
}

/// A bundle as it will be written; the fields are for tests to change.
pub struct Bundle {
    pub manifest: Manifest,
    pub graph: ModelProto,
    pub data: Vec<u8>,
}

impl Bundle {
    /// The network above.
    pub fn new() -> Self {
        let mut bundle = Self::empty(&["relu", "layer1", "fc"]);
        bundle.external("scale", &[1, 2, 1, 1], &SCALE);
        let weights: Vec<_> = (0..32).flat_map(|k| (0..3).map(move |j| weight(k, j))).collect();
        bundle.external("weight", &[32, 3], &weights);
        bundle.inline("offset", &[1], DataType::Float, to_bytes(&[OFFSET]));
        bundle.inline("bias", &[3], DataType::Float, to_bytes(&BIAS));
        bundle.node("Mul", &[INPUT_NAME, "scale"], "scaled", vec![]);
        bundle.node("Relu", &["scaled"], "relu", vec![]);
        bundle.node("Add", &["relu", "offset"], "layer1", vec![]);
        bundle.node("Flatten", &["layer1"], "features", vec![int("axis", 1)]);
        bundle.node("Gemm", &["features", "weight", "bias"], "fc", vec![]);
        bundle
    }

    /// The same, but `layer1` fails when it is computed, and `fc` with it: it gathers a column that doesn't exist.
    pub fn failing_after_relu() -> Self {
        let mut bundle = Self::new();
        let columns: Vec<u8> = [0_i64, 1, 2, 99]
            .iter()
            .flat_map(|column| column.to_le_bytes())
            .collect();
        bundle.inline("columns", &[4], DataType::Int64, columns);
        let gather = node("Gather", &["relu", "columns"], "layer1", vec![int("axis", 3)]);
        bundle.graph_mut().node[2] = gather;
        bundle
    }

    /// A graph without nodes, with these layers as outputs.
    pub fn empty(layers: &[&str]) -> Self {
        let manifest = manifest(layers);
        let graph = GraphProto {
            name: "network".into(),
            input: vec![value(INPUT_NAME, &[1, 4, 4])],
            output: manifest
                .layers
                .iter()
                .map(|layer| value(&layer.name, &layer.shape))
                .collect(),
            ..Default::default()
        };
        let graph = ModelProto {
            ir_version: 8,
            producer_name: "test".into(),
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 17,
            }],
            graph: Some(graph),
            ..Default::default()
        };
        Self {
            manifest,
            graph,
            data: Vec::new(),
        }
    }

    pub fn graph_mut(&mut self) -> &mut GraphProto {
        self.graph.graph.as_mut().unwrap()
    }

    pub fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        let node = node(operator, inputs, output, attributes);
        self.graph_mut().node.push(node);
    }

    pub fn inline(&mut self, name: &str, dims: &[i64], data_type: DataType, raw_data: Vec<u8>) {
        self.graph_mut().initializer.push(TensorProto {
            dims: dims.to_vec(),
            data_type: data_type as i32,
            name: name.into(),
            raw_data,
            ..Default::default()
        });
    }

    /// Float32 weights in the data file, at an offset that is a multiple of 4096.
    pub fn external(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        let offset = self.data.len().next_multiple_of(4096);
        self.data.resize(offset, 0);
        self.data.extend(to_bytes(values));
        self.external_range(name, dims, offset, values.len() * 4);
    }

    /// Float32 weights somewhere in the data file.
    pub fn external_range(&mut self, name: &str, dims: &[i64], offset: usize, length: usize) {
        let entries = [
            ("location", DATA_FILE.into()),
            ("offset", offset.to_string()),
            ("length", length.to_string()),
        ];
        let entry = |(key, value): (&str, String)| StringStringEntryProto {
            key: key.into(),
            value,
        };
        self.graph_mut().initializer.push(TensorProto {
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            name: name.into(),
            external_data: entries.map(entry).to_vec(),
            data_location: DataLocation::External as i32,
            ..Default::default()
        });
    }

    /// Changes where the weights are said to be.
    pub fn with_location(mut self, location: &str) -> Self {
        for tensor in &mut self.graph_mut().initializer {
            for entry in &mut tensor.external_data {
                if entry.key == "location" {
                    entry.value = location.into();
                }
            }
        }
        self
    }

    /// Writes `repository/model/version`; returns the folder.
    pub fn write(mut self, repository: &Path, model: &str, version: u64) -> PathBuf {
        let folder = repository.join(model).join(version.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        self.graph.metadata_props = vec![StringStringEntryProto {
            key: METADATA_KEY.into(),
            value: serde_json::to_string(&self.manifest).unwrap(),
        }];
        std::fs::write(folder.join("model.onnx"), self.graph.encode_to_vec()).unwrap();
        std::fs::write(folder.join(DATA_FILE), &self.data).unwrap();
        folder
    }
}

/// Puts a bundle in the place of whatever `replace` has put there before, at once and whole: the repository has a link,
/// which is renamed. What it referred to before is removed.
#[cfg(unix)]
pub fn replace(repository: &Path, model: &str, version: u64, bundle: Bundle) {
    let elsewhere = tempfile::tempdir_in(repository.parent().unwrap()).unwrap().keep();
    let new = bundle.write(&elsewhere, model, version);
    let place = repository.join(model).join(version.to_string());
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    let old = place.canonicalize();
    let link = elsewhere.join("link");
    std::os::unix::fs::symlink(new, &link).unwrap();
    std::fs::rename(link, place).unwrap();
    if let Ok(old) = old {
        std::fs::remove_dir_all(old).unwrap();
    }
}

/// `relu` of one image, by hand.
pub fn relu(image: &[f32; 16]) -> Vec<f32> {
    SCALE
        .iter()
        .flat_map(|scale| image.map(|x| (scale * x).max(0.0)))
        .collect()
}

/// `layer1` of one image, by hand.
pub fn layer1(image: &[f32; 16]) -> Vec<f32> {
    relu(image).into_iter().map(|value| value + OFFSET).collect()
}

/// `fc` of one image, by hand.
pub fn fc(image: &[f32; 16]) -> Vec<f32> {
    let features = layer1(image);
    let logit = |j: usize| {
        let products = features
            .iter()
            .enumerate()
            .map(|(k, value)| f64::from(value * weight(k, j)));
        (products.sum::<f64>() + f64::from(BIAS[j])) as f32
    };
    (0..3).map(logit).collect()
}

/// An integer attribute.
pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: value,
        r#type: AttributeType::Int as i32,
        ..Default::default()
    }
}

/// An attribute of several integers.
pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints as i32,
        ..Default::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        name: output.into(),
        op_type: operator.into(),
        attribute,
        ..Default::default()
    }
}

fn manifest(layers: &[&str]) -> Manifest {
    let input = InputShape {
        channels: 1,
        height: 4,
        width: 4,
    };
    let connectivity = Connectivity::LocallyConnected { n_first_conv: 0 };
    let architecture = Architecture::resnet_cifar(1, input, 2, CLASSES.len(), connectivity);
    let mut all = architecture.network().unwrap().layers();
    all.retain(|layer| layers.contains(&layer.name.as_str()));
    assert_eq!(all.len(), layers.len());
    Manifest {
        format_version: FORMAT_VERSION,
        architecture,
        layers: all,
        preprocessing: Preprocessing::unit_range(input),
        class_names: CLASSES.map(String::from).to_vec(),
        checkpoint_digest: DIGEST.into(),
        provenance: BTreeMap::new(),
        weights: WeightType::Fp32,
        data_digest: String::new(),
    }
}

/// A float32 value of any number of images.
fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let batch = dimension::Value::DimParam("batch".into());
    let lengths = shape
        .iter()
        .map(|&length| dimension::Value::DimValue(length as i64));
    let dim = std::iter::once(batch)
        .chain(lengths)
        .map(|value| Dimension { value: Some(value) });
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
        ..Default::default()
    }
}
