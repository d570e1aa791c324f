//! Computes projections: `(x - mean) · componentsᵀ` in ONNX Runtime, whose threads all computations share.
//!
//! The components are the left factor of the product. ONNX Runtime copies the right factor of every product into an order
//! of its own, which is so the narrow one, and reads the left one once, where it is: mapped from its file.

use std::sync::{Mutex, PoisonError};

use ort::session::Session;
use ort::value::TensorRef;
use prost::Message as _;
use proto::onnx::attribute_proto::AttributeType;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::tensor_shape_proto::{Dimension, dimension};
use proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

use super::Projection;
use crate::onnx_runtime::OnnxRuntime;
use crate::provider::Provider;
use crate::session::{LayerOutput, SessionError};

/// Computes projections, one at a time.
pub struct Projector {
    onnx_runtime: OnnxRuntime,
    /// Made when it is first needed.
    session: Mutex<Option<Session>>,
}

impl Projector {
    /// Computes with `onnx_runtime`'s threads.
    pub fn new(onnx_runtime: OnnxRuntime) -> Self {
        Self {
            onnx_runtime,
            session: Mutex::new(None),
        }
    }

    /// Projects rows of [`Projection::features`] values each. Blocks while it computes.
    ///
    /// # Errors
    /// Those of ONNX Runtime.
    pub fn project(&self, rows: &[f32], projection: &Projection) -> Result<LayerOutput, SessionError> {
        let (features, components) = (projection.features(), projection.components());
        let count = rows.len() / features;
        let matrix = projection.matrix();
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = match &mut *session {
            Some(session) => session,
            empty => empty.insert(self.load().map_err(SessionError::Load)?),
        };
        let mut run = || {
            let outputs = session.run(ort::inputs![
                "x" => TensorRef::from_array_view(([count, features], rows))?,
                "mean" => TensorRef::from_array_view(([features], projection.mean()))?,
                "components" => TensorRef::from_array_view(([components, features], &*matrix))?,
            ])?;
            let mut outputs = outputs;
            Ok(outputs.remove("y"))
        };
        let output = run().map_err(SessionError::Run)?;
        LayerOutput::new(output, projection.name(), count, &[components])
    }

    fn load(&self) -> ort::Result<Session> {
        // On the CPU whatever computes the networks: the components would have to be copied to a GPU for every batch.
        let builder = Provider::cpu("projections").session_builder(self.onnx_runtime.environment())?;
        builder
            .with_memory_pattern(false)?
            .commit_from_memory(&graph().encode_to_vec())
    }
}

/// `y [n, K] = transpose(components [K, D] · transpose(x [n, D] - mean [D]))`.
fn graph() -> ModelProto {
    let value = |name: &str, dimensions: &[&str]| {
        let dimension = |name: &&str| Dimension {
            value: Some(dimension::Value::DimParam((*name).into())),
        };
        let tensor = type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape: Some(TensorShapeProto {
                dim: dimensions.iter().map(dimension).collect(),
            }),
        };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
            }),
            ..Default::default()
        }
    };
    let node = |operator: &str, inputs: &[&str], output: &str, attribute| NodeProto {
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        op_type: operator.into(),
        attribute,
        ..Default::default()
    };
    let transposed = AttributeProto {
        name: "transB".into(),
        i: 1,
        r#type: AttributeType::Int as i32,
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![
            node("Sub", &["x", "mean"], "centred", vec![]),
            node("Gemm", &["components", "centred"], "columns", vec![transposed]),
            node("Transpose", &["columns"], "y", vec![]),
        ],
        name: "projection".into(),
        input: vec![
            value("x", &["n", "D"]),
            value("mean", &["D"]),
            value("components", &["K", "D"]),
        ],
        output: vec![value("y", &["n", "K"])],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        graph: Some(graph),
        ..Default::default()
    }
}
