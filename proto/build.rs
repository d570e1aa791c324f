//! Compiles the `.proto` files with protox, a protobuf compiler in Rust, so that building needs no protoc.

use std::error::Error;
use std::path::Path;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "ventral/v1/ventral.proto",
        "inference/grpc_service.proto",
        "inference/model_config.proto",
        "onnx/onnx.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let folder = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo sets it")?;
    std::fs::write(
        Path::new(&folder).join("descriptors.binpb"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .bytes(".ventral.v1")
        .bytes(".inference")
        .compile_fds(descriptors)?;
    Ok(())
}
