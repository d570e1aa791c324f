//! Ten thousand idle connections.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use proto::ventral::v1::ListModelsRequest;
use proto::ventral::v1::ventral_client::VentralClient;
use support::bundle::Bundle;
use support::program::{Program, command};
use support::{http_client, png};

const WANTED: u64 = 10_000;

/// Fewer prove nothing.
const LEAST: u64 = 1000;

/// Open files that this process needs besides.
const OTHERS: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_no_one_from_being_served() {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let count = WANTED.min(limit.saturating_sub(OTHERS));
    assert!(
        count >= LEAST,
        "`ulimit -Hn` allows {limit} open files: this test needs {} at least",
        LEAST + OTHERS
    );
    println!("{count} idle connections; the limit of open files is {limit}");
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut program = Program::start(&mut command(repository.path()));
    let http = program.address("http listening on ");
    let grpc = program.address("grpc listening on ");
    let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>().unwrap();
    let ports = [address(&http), address(&grpc)];
    let patience = Duration::from_secs(60);
    let idle: Vec<_> = (0..count)
        .map(|index| TcpStream::connect_timeout(&ports[usize::from(index % 2 == 1)], patience).unwrap())
        .collect();

    let image = png(4, 4, &[9; 16]);
    let url = format!("{http}/v1/models/hand/classify");
    let response = http_client()
        .post(url)
        .header("Content-Type", "image/png")
        .send(&image[..]);
    assert_eq!(response.unwrap().status(), 200);
    let mut client = VentralClient::connect(grpc).await.unwrap();
    client.list_models(ListModelsRequest {}).await.unwrap();
    drop(client);
    drop(idle);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
