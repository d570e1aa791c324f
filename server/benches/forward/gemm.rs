//! The most that ONNX Runtime computes on this machine: one large product of float32 matrices.

use std::time::Instant;

use anyhow::Result;
use ort::value::TensorRef;
use prost::Message as _;
use proto::onnx::tensor_proto::DataType;
use proto::onnx::tensor_shape_proto::{Dimension, dimension};
use proto::onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};
use server::onnx_runtime::OnnxRuntime;

/// Rows and columns of all three matrices.
const SIZE: usize = 3072;
/// After one to warm up.
const RUNS: usize = 6;

/// FLOP/s of the best of several products.
pub fn peak(runtime: &OnnxRuntime) -> Result<f64> {
    let mut builder = runtime.provider().session_builder(runtime.environment())?;
    let mut session = builder.commit_from_memory(&product().encode_to_vec())?;
    let a: Vec<f32> = (0..SIZE * SIZE).map(|index| (index % 7) as f32 - 3.0).collect();
    let b: Vec<f32> = (0..SIZE * SIZE).map(|index| (index % 5) as f32 - 2.0).collect();
    let mut best = f64::INFINITY;
    for run in 0..=RUNS {
        let factors = ort::inputs![
            "a" => TensorRef::from_array_view(([SIZE, SIZE], a.as_slice()))?,
            "b" => TensorRef::from_array_view(([SIZE, SIZE], b.as_slice()))?,
        ];
        let start = Instant::now();
        session.run(factors)?;
        let seconds = start.elapsed().as_secs_f64();
        if run > 0 {
            best = best.min(seconds);
        }
    }
    Ok(2.0 * (SIZE as f64).powi(3) / best)
}

/// `c = a · b`. Both factors are inputs: a constant one would be packed beforehand.
fn product() -> ModelProto {
    let value = |name: &str| ValueInfoProto {
        name: name.into(),
        r#type: Some(matrix()),
        ..Default::default()
    };
    let node = NodeProto {
        input: vec!["a".into(), "b".into()],
        output: vec!["c".into()],
        op_type: "MatMul".into(),
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![node],
        name: "product".into(),
        input: vec![value("a"), value("b")],
        output: vec![value("c")],
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

fn matrix() -> TypeProto {
    let length = || Dimension {
        value: Some(dimension::Value::DimValue(SIZE as i64)),
    };
    TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape: Some(TensorShapeProto {
                dim: vec![length(), length()],
            }),
        })),
    }
}
