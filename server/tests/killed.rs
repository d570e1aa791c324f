//! A server that is killed under load, again and again, while its bundle is being replaced: nothing that it leaves behind
//! keeps the next one from serving, and no answer is ever wrong.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::bundle::{self, Bundle, replace};
use support::http_client;
use support::program::{Program, command};

const IMAGE: [f32; 16] = [
    0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 0.125, 3.0, -3.0, 0.75, 1.5, -1.5, 0.0, 4.0, -0.5, 1.0,
];

const KILLS: usize = 6;

/// How long the slowest machine may take to answer some requests.
const PATIENCE: Duration = Duration::from_secs(60);

/// `relu` of the image from the server at an address, if it answers.
fn ask(address: &str) -> Option<Vec<f64>> {
    let request = json!({
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1, 4, 4], "data": IMAGE}],
        "outputs": [{"name": "relu"}],
    });
    let post = http_client().post(format!("{address}/v2/models/hand/infer"));
    // A server that is killed leaves connections broken at any point.
    let mut response = post.send(request.to_string()).ok()?;
    let body = response.body_mut().read_to_string().ok()?;
    assert_eq!(response.status(), 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let data = answer["outputs"][0]["data"].as_array().unwrap().iter();
    Some(data.map(|value| value.as_f64().unwrap()).collect())
}

#[test]
fn a_server_that_is_killed_under_load_serves_again() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("models");
    std::fs::create_dir(&repository).unwrap();
    replace(&repository, "hand", 1, Bundle::new());
    let start = || {
        let mut command = command(&repository);
        // No one reads the log, which must not fill up.
        command
            .args(["--repository-poll-interval", "50ms"])
            .env("RUST_LOG", "error");
        let mut program = Program::start(&mut command);
        let address = program.address("http listening on ");
        (program, address)
    };
    let (mut program, address) = start();
    let address = Arc::new(Mutex::new(address));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let expected: Vec<f64> = bundle::relu(&IMAGE).into_iter().map(f64::from).collect();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop, answered) = (Arc::clone(&address), Arc::clone(&stop), Arc::clone(&answered));
            let expected = expected.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let address = address.lock().unwrap().clone();
                    if let Some(found) = ask(&address) {
                        assert_eq!(found, expected);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for kill in 0..=KILLS {
        let (before, since) = (answered.load(Ordering::Relaxed), Instant::now());
        while answered.load(Ordering::Relaxed) < before + 20 {
            assert!(
                since.elapsed() < PATIENCE,
                "the server doesn't answer after {kill} kills"
            );
            replace(&repository, "hand", 1, Bundle::new());
            std::thread::sleep(Duration::from_millis(20));
        }
        if kill < KILLS {
            program.signal("KILL");
            // Dropping waits for the end.
            drop(program);
            let started = start();
            program = started.0;
            *address.lock().unwrap() = started.1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
