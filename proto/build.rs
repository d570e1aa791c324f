//! Compiles the `.proto` files with protox, a protobuf compiler in Rust, so that building needs no protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["ventral/v1/ventral.proto", "onnx/onnx.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        .bytes(".ventral.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
