//! Memory doesn't grow with the number of requests, and slow readers hold no more than they may. A test program of its
//! own, so that nothing else runs in the process that is measured.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::{EncodedImages, GetActivationsRequest};
use support::bundle::Bundle;
use support::png;
use support::program::{Program, command};

/// Says how many requests there are, for a longer look.
const VARIABLE: &str = "VENTRAL_MEMORY_TEST_REQUESTS";
const REQUESTS: usize = 100_000;
/// Requests that are under way at a time.
const CLIENTS: usize = 16;

/// What a server may have more at the end than after a tenth of the requests: not a hundred bytes for each of the others, of
/// which the allocator alone takes some megabytes to settle.
const GROWTH: usize = 8 << 20;

fn resident_memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_number_of_requests() {
    let requests = std::env::var(VARIABLE).map_or(REQUESTS, |count| count.parse().unwrap());
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut program = Program::start(&mut command(repository.path()));
    program.address("http listening on ");
    let grpc = program.address("grpc listening on ");
    let client = proto::ventral::v1::ventral_client::VentralClient::connect(grpc)
        .await
        .unwrap();
    let run = async |count: usize| {
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..CLIENTS {
            let mut client = client.clone();
            clients.spawn(async move {
                for index in 0..count / CLIENTS {
                    let seed = (number * 31 + index) as u8;
                    let request = GetActivationsRequest {
                        model: "hand".into(),
                        layers: vec![["relu", "layer1", "fc"][index % 3].into()],
                        stimuli: Some(Stimuli::Images(EncodedImages {
                            images: vec![png(4, 4, &[seed; 16]).into()],
                        })),
                        ..Default::default()
                    };
                    client.get_activations(request).await.unwrap();
                }
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    };
    run(requests / 10).await;
    let mut before = resident_memory(program.id());
    // The allocator may settle late, but only once: what leaks grows both times.
    for is_last in [false, true] {
        run(requests - requests / 10).await;
        let now = resident_memory(program.id());
        let grown = now.saturating_sub(before);
        if grown < GROWTH {
            break;
        }
        assert!(!is_last, "{} KiB more than {} KiB", grown >> 10, before >> 10);
        before = now;
    }
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
