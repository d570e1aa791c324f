//! What bundles take, and those that are too large together.

use std::path::Path;
use std::time::Duration;

use server::{RepositoryOptions, WarmUp};
use tonic::Code;

use crate::support::bundle::Bundle;
use crate::support::http_client;
use crate::support::running::Running;
use crate::{ask, describe, relu, repository, scaled};

/// Weights of the bundle that is measured.
const WEIGHT_BYTES: u64 = 3 << 20;

/// Weights that fill this many MiB, beside those of the usual bundle.
fn padded(factor: u32, mebibytes: usize) -> Bundle {
    let mut bundle = scaled(factor);
    bundle.data.resize(mebibytes << 20, 0);
    bundle
}

fn loaded(models: &serde_json::Value) -> Vec<(String, bool)> {
    let models = models["models"].as_array().unwrap().iter();
    let loaded = models.map(|model| {
        let name = model["name"].as_str().unwrap().to_owned();
        (name, model["bundles"][0]["loaded"].as_bool().unwrap())
    });
    loaded.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_models_make_room_and_come_back() {
    let (_folder, repository) = repository();
    for (model, factor) in [("a", 1), ("b", 2), ("c", 3)] {
        padded(factor, 2).write(&repository, model, 1);
    }
    padded(4, 6).write(&repository, "huge", 1);
    let options = RepositoryOptions {
        memory_limit: Some(5 << 20),
        ..RepositoryOptions::default()
    };
    let running = Running::start_keeping(&repository, options).await;
    let models = || {
        let mut answer = http_client().get(running.url("/v1/models")).call().unwrap();
        loaded(&serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap())
    };
    let expect = |in_memory: [&str; 2]| {
        let expected = ["a", "b", "c"].map(|name| (name.to_owned(), in_memory.contains(&name)));
        assert_eq!(models(), expected);
    };
    expect(["a", "b"]);
    let mut client = running.client().await;
    for (model, digest, in_memory) in [
        ("a", "1", ["a", "b"]),
        ("c", "3", ["a", "c"]),
        ("a", "1", ["a", "c"]),
        ("b", "2", ["a", "b"]),
        ("c", "3", ["b", "c"]),
    ] {
        let (found, values) = ask(&mut client, model, "", "relu").await.unwrap();
        assert_eq!(found, digest);
        assert_eq!(values, relu(digest.parse().unwrap()));
        expect(in_memory);
    }
    let status = ask(&mut client, "huge", "", "relu").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    // Many at a time, more than there is room for: each is answered by its own bundle.
    let tasks: Vec<_> = (0..24)
        .map(|index| {
            let (model, digest) = [("a", "1"), ("b", "2"), ("c", "3")][index % 3];
            let mut client = client.clone();
            tokio::spawn(async move {
                assert_eq!(ask(&mut client, model, "", "layer1").await.unwrap().0, digest);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(models().iter().filter(|(_, loaded)| *loaded).count(), 2);
    running.stop().await;
}

/// Starts a server of one bundle with [`WEIGHT_BYTES`], and returns how many of them are in memory, where the system says so.
async fn measured(repository: &Path, warm_up: WarmUp) -> Option<u64> {
    let options = RepositoryOptions {
        warm_up,
        ..RepositoryOptions::default()
    };
    let running = Running::start_keeping(repository, options).await;
    let mut client = running.client().await;
    let model = describe(&mut client, "lc").await.unwrap();
    assert!(model.load_seconds > 0.0);
    assert_eq!(model.weight_bytes, WEIGHT_BYTES);
    assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().0, "1");
    running.stop().await;
    model.resident_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bundle_takes_is_measured() {
    let (_folder, path) = repository();
    padded(1, 3).write(&path, "lc", 1);
    let mut largest = 0;
    // The system may take pages back before they are counted, but hardly every time.
    for warm_up in [
        WarmUp::None,
        WarmUp::Forward,
        WarmUp::Pages,
        WarmUp::Pages,
        WarmUp::Pages,
    ] {
        let resident = measured(&path, warm_up).await;
        if cfg!(target_os = "linux") {
            let resident = resident.unwrap();
            assert!(resident <= WEIGHT_BYTES, "{resident}");
            if warm_up == WarmUp::Pages {
                largest = largest.max(resident);
            }
        }
    }
    // Older kernels bring pages in one by one.
    if cfg!(target_os = "linux") && kernel_reads_ahead() {
        assert!(largest > WEIGHT_BYTES / 2, "{largest}");
    }
}

/// Whether the kernel brings in mapped pages on demand of the program: Linux 5.14 and newer.
fn kernel_reads_ahead() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.trim().parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_loaded_for_a_moment_is_loaded_later() {
    let (folder, repository) = repository();
    for (model, factor) in [("a", 1), ("b", 2)] {
        padded(factor, 2).write(&repository, model, 1);
    }
    let options = RepositoryOptions {
        memory_limit: Some(3 << 20),
        ..RepositoryOptions::default()
    };
    let running = Running::start_keeping(&repository, options).await;
    let mut client = running.client().await;
    // `b` has to wait until it is asked for; just then its graph can't be read.
    let (graph, away) = (repository.join("b/1/model.onnx"), folder.path().join("away"));
    std::fs::rename(&graph, &away).unwrap();
    let status = ask(&mut client, "b", "", "relu").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let mut index = http_client()
        .post(running.url("/v2/repository/index"))
        .send_empty()
        .unwrap();
    let index = index.body_mut().read_to_string().unwrap();
    assert!(index.contains("it couldn't be loaded"), "{index}");
    std::fs::rename(&away, &graph).unwrap();
    for attempt in 0.. {
        match ask(&mut client, "b", "", "relu").await {
            Ok((_, values)) => {
                assert_eq!(values, relu(2));
                break;
            }
            Err(status) => assert!(attempt < 6000, "{status}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.stop().await;
}
