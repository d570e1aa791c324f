//! Images that are larger than they look.

use proto::ventral::v1::EncodedImages;
use proto::ventral::v1::get_activations_request::Stimuli;

use crate::support::bundle::Bundle;
use crate::support::png;
use crate::support::running::Running;
use crate::{classify, request};

/// A PNG that says that it has so many pixels, and little else.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut image = png(1, 1, &[0]);
    image[16..20].copy_from_slice(&width.to_be_bytes());
    image[20..24].copy_from_slice(&height.to_be_bytes());
    let mut checksum = flate2::Crc::new();
    checksum.update(&image[12..29]);
    image[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_refused_before_they_go_off() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let before = resident_memory();
    for (image, expected) in [
        (claiming(u32::MAX >> 1, u32::MAX >> 1), 413),
        (claiming(100_000, 100_000), 413),
        // 60 million pixels are allowed, but they aren't there.
        (claiming(10_000, 6_000), 400),
    ] {
        let (status, _, body) = classify(&running, &image);
        assert_eq!(status, expected, "{body}");
    }
    // A few kilobytes that are many pixels: a real image, within the limit, one after the other.
    let black = png(8000, 8000, &vec![0; 64_000_000]);
    assert!(black.len() < 1 << 20, "{}", black.len());
    let mut client = running.client().await;
    for _ in 0..8 {
        let mut bomb = request(0);
        bomb.stimuli = Some(Stimuli::Images(EncodedImages {
            images: vec![black.clone().into()],
        }));
        client.get_activations(bomb).await.unwrap();
    }
    let grown = resident_memory().saturating_sub(before);
    // Each is 64 MB; those of a few workers may still be held by the allocator.
    assert!(grown < 512 << 20, "{} MiB", grown >> 20);
    running.stop().await;
}

/// Bytes of memory that this process has.
fn resident_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
