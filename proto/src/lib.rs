//! What everyone agrees on over the wire: the gRPC services `ventral.v1` and `inference` (the Open Inference Protocol),
//! and the ONNX messages that the exporter writes and the server reads. The `.proto` files beside this crate are the
//! reference; they carry the documentation.

#![expect(
    missing_docs,
    reason = "the generated code carries the comments of the .proto files"
)]
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// Ventral's own service: activations, classification, models.
pub mod ventral {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("ventral.v1");
    }
}

/// The Open Inference Protocol.
pub mod inference {
    tonic::include_proto!("inference");
}

/// The messages of an ONNX file that Ventral reads and writes.
pub mod onnx {
    tonic::include_proto!("onnx");
}

/// Descriptions of all messages and services, as gRPC reflection gives them: an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
