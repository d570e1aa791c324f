//! Bundles that appear, are replaced, removed, broken.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proto::ventral::v1::ListModelsRequest;
use proto::ventral::v1::ventral_client::VentralClient;
use server::RepositoryOptions;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::bundle::{self, replace};
use crate::support::program::{Program, command};
use crate::support::running::Running;
use crate::support::{http_client, png};
use crate::{alone, ask, describe, relu, repository, scaled};

/// How long the slowest machine may take to notice something.
const PATIENCE: Duration = Duration::from_secs(60);

fn watching() -> RepositoryOptions {
    RepositoryOptions {
        poll_interval: Some(Duration::from_millis(20)),
        ..RepositoryOptions::default()
    }
}

async fn served(client: &mut VentralClient<Channel>) -> Vec<(String, Vec<String>)> {
    let models = client.list_models(ListModelsRequest {}).await.unwrap();
    let models = models.into_inner().models.into_iter();
    models.map(|model| (model.name, model.versions)).collect()
}

/// Waits for what must happen some time.
async fn in_time(wait: impl Future<Output = ()>, otherwise: &str) {
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{otherwise}");
}

/// Waits until the models are these.
async fn wait_for_models(client: &mut VentralClient<Channel>, expected: &[(&str, &[&str])]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, versions)| {
            let versions = versions.iter().map(ToString::to_string).collect::<Vec<_>>();
            (name.to_string(), versions)
        })
        .collect();
    let wait = async {
        while served(client).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(wait, "the models don't become what is expected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_that_appear_and_vanish_are_noticed() {
    let (_folder, repository) = repository();
    let running = Running::start_keeping(&repository, watching()).await;
    let mut client = running.client().await;
    wait_for_models(&mut client, &[]).await;
    assert_eq!(
        ask(&mut client, "lc", "", "fc").await.unwrap_err().code(),
        Code::NotFound
    );

    replace(&repository, "lc", 1, scaled(1));
    wait_for_models(&mut client, &[("lc", &["1"])]).await;
    assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().1, relu(1));

    replace(&repository, "lc", 2, scaled(2));
    wait_for_models(&mut client, &[("lc", &["1", "2"])]).await;
    assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().0, "2");
    assert_eq!(ask(&mut client, "lc", "1", "relu").await.unwrap().0, "1");

    std::fs::remove_dir_all(repository.join("lc/2")).unwrap();
    wait_for_models(&mut client, &[("lc", &["1"])]).await;
    assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().0, "1");
    let status = ask(&mut client, "lc", "2", "relu").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    std::fs::remove_dir_all(repository.join("lc")).unwrap();
    wait_for_models(&mut client, &[]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_replaced_under_load_without_a_request_failing_or_mixing_weights() {
    let (_folder, repository) = repository();
    replace(&repository, "lc", 1, scaled(1));
    let running = Running::start_keeping(&repository, watching()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for layer in ["relu", "layer1", "fc", "relu"] {
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        let mut client = running.client().await;
        clients.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let (digest, values) = ask(&mut client, "lc", "", layer).await.unwrap();
                let factor: u32 = digest.parse().unwrap();
                let offset = if layer == "layer1" { bundle::OFFSET } else { 0.0 };
                if layer == "fc" {
                    assert_eq!(values.len(), 3);
                } else {
                    let expected = relu(factor).into_iter().map(|value| value + offset);
                    assert!(
                        values.into_iter().eq(expected),
                        "the weights are another bundle's"
                    );
                }
                if seen.last() != Some(&factor) {
                    seen.push(factor);
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
            seen
        }));
    }
    let mut client = running.client().await;
    for factor in 2..=12 {
        replace(&repository, "lc", 1, scaled(factor));
        let wait = async {
            let before = answered.load(Ordering::Relaxed);
            while describe(&mut client, "lc").await.unwrap().checkpoint_digest != factor.to_string()
                || answered.load(Ordering::Relaxed) < before + 20
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time(wait, "the new bundle isn't served").await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let seen = client.await.unwrap();
        assert!(
            seen.is_sorted(),
            "an older bundle answered after a newer one: {seen:?}"
        );
        assert!(seen.len() > 1, "{seen:?}");
    }
    drop(client);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_bundle_leaves_the_one_that_it_replaces_and_its_neighbours_serving() {
    let (_folder, repository) = repository();
    replace(&repository, "lc", 1, scaled(1));
    replace(&repository, "other", 1, scaled(3));
    let running = Running::start_keeping(&repository, watching()).await;
    let mut client = running.client().await;

    let mut broken = scaled(2);
    broken.graph_mut().node[1].op_type = "NoSuchOperator".into();
    replace(&repository, "lc", 1, broken);
    let mut newer = scaled(2);
    newer.manifest.format_version = 99;
    replace(&repository, "lc", 2, newer);
    replace(&repository, "third", 1, scaled(4));
    wait_for_models(
        &mut client,
        &[("lc", &["1"]), ("other", &["1"]), ("third", &["1"])],
    )
    .await;
    assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().0, "1");
    // A cut that was never loaded before comes from the files that were, wherever they are now.
    assert_eq!(ask(&mut client, "other", "", "layer1").await.unwrap().0, "3");
    let status = ask(&mut client, "lc", "2", "relu").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("can't be served"), "{status}");

    // What is mended is served.
    replace(&repository, "lc", 2, scaled(5));
    wait_for_models(
        &mut client,
        &[("lc", &["1", "2"]), ("other", &["1"]), ("third", &["1"])],
    )
    .await;
    assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().0, "5");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_read_takes_nothing_out_of_service() {
    let (folder, repository) = repository();
    replace(&repository, "lc", 1, scaled(1));
    let running = Running::start_keeping(&repository, watching()).await;
    let mut client = running.client().await;
    let away = folder.path().join("away");
    std::fs::rename(&repository, &away).unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ask(&mut client, "lc", "", "relu").await.unwrap().0, "1");
    }
    std::fs::rename(&away, &repository).unwrap();
    replace(&repository, "lc", 2, scaled(2));
    wait_for_models(&mut client, &[("lc", &["1", "2"])]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_missing_once_may_be_about_to_be_replaced() {
    let (folder, path) = repository();
    scaled(1).write(&path, "lc", 1);
    let repository = alone(&path).await;
    let digest = || async {
        let bundle = repository.get("lc", "").await;
        bundle.map(|bundle| bundle.manifest.checkpoint_digest.clone())
    };
    std::fs::rename(path.join("lc/1"), folder.path().join("old")).unwrap();
    repository.refresh().await.unwrap();
    assert_eq!(digest().await.unwrap(), "1");
    scaled(2).write(&path, "lc", 1);
    repository.refresh().await.unwrap();
    assert_eq!(digest().await.unwrap(), "2");

    std::fs::remove_dir_all(path.join("lc")).unwrap();
    repository.refresh().await.unwrap();
    assert_eq!(digest().await.unwrap(), "2");
    repository.refresh().await.unwrap();
    assert!(digest().await.unwrap_err().to_string().contains("does not exist"));
}

/// A user who may not read what others keep to themselves, unlike root.
const NOBODY: u32 = 65534;

fn permit(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_cannot_be_read_leaves_all_models_serving() {
    let (folder, repository) = repository();
    permit(folder.path(), 0o755);
    scaled(1).write(&repository, "lc", 1);
    std::fs::create_dir(repository.join("lost+found")).unwrap();
    permit(&repository.join("lost+found"), 0);
    let mut command = command(&repository);
    command.args(["--repository-poll-interval", "20ms"]);
    if folder.path().metadata().unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut program = Program::start(&mut command);
    let http = program.address("http listening on ");
    let unreadable = "its folder can't be read";
    assert!(program.wait_for_log(unreadable).contains("lost+found"));

    permit(&repository.join("lc"), 0);
    let line = program.wait_for_log(unreadable);
    assert!(line.contains("lc"), "{line}");
    // What was missing twice would be out of service: two looks later it isn't.
    for model in ["second", "third"] {
        scaled(2).write(folder.path(), model, 1);
        std::fs::rename(folder.path().join(model), repository.join(model)).unwrap();
        program.wait_for_log(&format!("loaded model=\"{model}\""));
    }
    let answer = http_client()
        .post(format!("{http}/v1/models/lc/classify"))
        .header("Content-Type", "image/png")
        .send(&png(4, 4, &[9; 16])[..])
        .unwrap();
    assert_eq!(answer.status(), 200);
    permit(&repository.join("lc"), 0o755);
    program.signal("TERM");
    assert_eq!(program.end().0, Some(0));
}
