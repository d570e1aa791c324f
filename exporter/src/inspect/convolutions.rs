//! The network's convolutions, what they cost, and how a bundle stores their weights.

use std::collections::HashMap;

use model::{Convolution, Network};
use proto::onnx::TensorProto;
use proto::onnx::tensor_proto::DataType;
use serde::Serialize;

use super::product;
use crate::bundle::Bundle;

/// A convolution, or a layer of the same geometry whose weights aren't shared.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedConvolution {
    /// Its layer's name.
    pub name: String,
    /// Whether every output position has its own kernel.
    pub locally_connected: bool,
    /// Windows are square.
    pub kernel_size: usize,
    /// The same in both directions.
    pub stride: usize,
    /// Trained numbers in its weights.
    pub parameters: u64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// `None` where no layer of the bundle needs it.
    pub stored: Option<StoredWeights>,
}

/// Weights in a bundle's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredWeights {
    /// As stored, outermost dimension first.
    pub shape: Vec<i64>,
    /// `float32`, `float16` or `bfloat16`.
    pub element_type: String,
    /// Without padding.
    pub bytes: u64,
}

/// Every convolution of a bundle's network, in call order.
pub(super) fn of(bundle: &Bundle, network: &Network) -> Vec<InspectedConvolution> {
    let constants = bundle.model().graph.iter().flat_map(|graph| &graph.initializer);
    let constants: HashMap<&str, &TensorProto> = constants
        .map(|constant| (constant.name.as_str(), constant))
        .collect();
    let convolutions = network.convolutions().map(|convolution| {
        let weights = constants.get(format!("{}/weights", convolution.name).as_str());
        InspectedConvolution::new(convolution, weights.map(|weights| StoredWeights::new(weights)))
    });
    convolutions.collect()
}

impl InspectedConvolution {
    fn new(convolution: &Convolution, stored: Option<StoredWeights>) -> Self {
        let (output, fan_in) = (convolution.output, convolution.fan_in());
        Self {
            name: convolution.name.clone(),
            locally_connected: convolution.locally_connected,
            kernel_size: convolution.kernel_size,
            stride: convolution.stride,
            parameters: convolution.weight_count() as u64,
            macs: product(&[output.height, output.width, fan_in, convolution.out_channels]),
            stored,
        }
    }
}

impl StoredWeights {
    fn new(tensor: &TensorProto) -> Self {
        let (element_type, width) = match DataType::try_from(tensor.data_type) {
            Ok(DataType::Float) => ("float32".into(), 4),
            Ok(DataType::Float16) => ("float16".into(), 2),
            Ok(DataType::Bfloat16) => ("bfloat16".into(), 2),
            Ok(DataType::Double) => ("float64".into(), 8),
            // An open bundle's constants are of known types; whole numbers are no weights.
            _ => (format!("ONNX element type {}", tensor.data_type), 0),
        };
        let lengths = tensor
            .dims
            .iter()
            .map(|&length| u64::try_from(length).unwrap_or(0));
        Self {
            shape: tensor.dims.clone(),
            element_type,
            bytes: lengths.fold(width, u64::saturating_mul),
        }
    }
}
