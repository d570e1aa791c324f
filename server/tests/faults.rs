//! What goes wrong outside: requests of arbitrary bytes, damaged images.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::io::Cursor;
use std::time::Duration;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use model::ColorMode;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config as ProptestConfig, TestRunner};
use proto::ventral::v1::GetModelRequest;
use support::bundle::Bundle;
use support::raw_grpc::{self, Descriptions};
use support::running::Running;
use support::{http_client, png};
use tonic::{Code, Request};

/// How long the slowest machine may take to answer a small request.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that begin like something that the server reads, and then are anything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let image = png(4, 4, &[7; 16]);
    let start = prop_oneof![
        Just(Vec::new()),
        Just(image[..40].to_vec()),
        Just(image),
        Just(b"\x93NUMPY\x01\x00".to_vec()),
        Just(b"\xff\xd8\xff\xe0".to_vec()),
        Just(b"II*\x00".to_vec()),
        Just(b"RIFF\x00\x01\x00\x00WEBPVP8 ".to_vec()),
        Just(b"BM".to_vec()),
        Just(b"--limit\r\nContent-Disposition: form-data; name=\"options\"\r\n\r\n{".to_vec()),
        Just(b"--limit\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a\"\r\n\r\n".to_vec()),
    ];
    let end = prop_oneof![Just(Vec::new()), Just(b"\r\n--limit--\r\n".to_vec())];
    (start, prop::collection::vec(any::<u8>(), 0..200), end).prop_map(|(a, b, c)| [a, b, c].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_the_server_s_fault() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let base = running.url("/v1/models/hand");
    let tried = tokio::task::spawn_blocking(move || {
        let types = [
            "image/png",
            "application/octet-stream",
            "application/x-npy",
            "multipart/form-data; boundary=limit",
            "multipart/form-data",
            "text/html",
        ];
        let paths = [
            "/classify",
            "/activations?layers=relu",
            "/activations",
            "/activations?layers=fc&format=npy",
        ];
        let request = (
            body(),
            prop::sample::select(types.to_vec()),
            prop::sample::select(paths.to_vec()),
        );
        let config = ProptestConfig {
            cases: 400,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        TestRunner::new(config).run(&request, |(body, content_type, path)| {
            let request = http_client()
                .post(format!("{base}{path}"))
                .header("Content-Type", content_type);
            let mut answer = request.send(&body[..]).unwrap();
            let status = answer.status().as_u16();
            let text = answer.body_mut().read_to_string().unwrap_or_default();
            prop_assert!([200, 400, 413, 415].contains(&status), "{} {}", status, text);
            Ok(())
        })
    });
    tried.await.unwrap().unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_stops_the_server() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let descriptions = Descriptions::read();
    let methods = descriptions.methods();
    let config = ProptestConfig {
        cases: 10,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    for method in &methods {
        // Messages that name a model and go on with anything, and anything at all.
        let start = descriptions.naming(method, "hand").unwrap_or_default().to_vec();
        let start = prop_oneof![Just(Vec::new()), Just(start)];
        let bytes = (start, prop::collection::vec(any::<u8>(), 0..60));
        for _ in 0..runner.config().cases {
            let (start, end) = bytes.new_tree(&mut runner).unwrap().current();
            let message = [start, end].concat();
            let call = raw_grpc::call(running.grpc_url(), &method.path, Request::new(message.into()));
            // Whatever it says, it says something.
            let answer = tokio::time::timeout(PATIENCE, call).await;
            if let Err(status) = answer.unwrap() {
                assert_ne!(status.code(), Code::Unknown, "{}: {status}", method.path);
            }
        }
    }
    // The call that unloads was made with anything too, so the model may be gone, but not for good.
    let load = running.url("/v2/repository/models/hand/load");
    let loaded = tokio::task::spawn_blocking(move || http_client().post(load).send_empty());
    assert_eq!(loaded.await.unwrap().unwrap().status().as_u16(), 200);
    let (mut client, model) = (running.client().await, "hand".to_owned());
    let version = String::new();
    client
        .get_model(GetModelRequest { model, version })
        .await
        .unwrap();
    running.stop().await;
}

/// An image in every format.
fn images() -> Vec<Vec<u8>> {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};

    let image = DynamicImage::from(RgbImage::from_fn(13, 9, |x, y| {
        Rgb([x as u8 * 19, y as u8 * 28, (x * y) as u8])
    }));
    let encode = |format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    [Bmp, Jpeg, Png, Tiff, WebP].map(encode).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes of real images are changed, doubled or taken away; whatever is decoded has the pixels that it says.
    #[test]
    fn a_damaged_image_is_an_image_or_an_error(
        image in prop::sample::select(images()),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..8),
        (from, to) in (any::<Index>(), any::<Index>()),
        cut in any::<bool>(),
    ) {
        let mut damaged = image;
        for (place, byte) in changes {
            let place = place.index(damaged.len());
            damaged[place] = byte;
        }
        let (from, to) = (from.index(damaged.len()), to.index(damaged.len()));
        if cut {
            damaged.drain(from.min(to)..from.max(to));
        } else {
            damaged.extend_from_within(from.min(to)..from.max(to));
        }
        let limits = model::image::Limits { bytes: 1 << 20, pixels: 1 << 20 };
        for color in [ColorMode::Rgb, ColorMode::Grayscale] {
            if let Ok(pixels) = model::image::decode(&damaged, color, limits) {
                let area = u64::from(pixels.width) * u64::from(pixels.height);
                prop_assert!((1..=limits.pixels).contains(&area));
                prop_assert_eq!(pixels.data.len() as u64, area * color.channels() as u64);
            }
        }
    }
}
