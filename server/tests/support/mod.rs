//! What the tests share: bundles written for the purpose, and servers that run them. Everything is real: the files, the
//! sockets, ONNX Runtime.

#![allow(
    dead_code,
    reason = "every test file compiles this module and uses its own part of it"
)]

pub mod bundle;
pub mod program;
pub mod raw_grpc;
pub mod running;

use std::io::Cursor;
use std::time::Duration;

use image::{GrayImage, ImageFormat};

/// A client that reports statuses instead of failing on them, and opens a connection a request.
pub fn http_client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(0)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

/// A grey PNG.
pub fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let image = GrayImage::from_raw(width, height, pixels.to_vec()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Little-endian bytes of values.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Values of little-endian bytes.
pub fn to_values(bytes: &[u8]) -> Vec<f32> {
    assert_eq!(bytes.len() % 4, 0);
    bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}
