//! Bundles that are loaded and unloaded when someone says so, and those that requests still hold.

use std::sync::Arc;
use std::time::Duration;

use server::RepositoryOptions;
use server::inference::Options;
use server::repository::{BundleState, ModelRepository};
use server::tensor_inference;

use crate::support::bundle::{self, Bundle, replace};
use crate::support::{to_bytes, to_values};
use crate::{IMAGE, alone, inference, relu, repository, scaled};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gets_sessions_of_a_bundle_whose_files_are_gone() {
    let (folder, path) = repository();
    scaled(3).write(&path, "lc", 1);
    let inference = inference();
    let options = RepositoryOptions::default();
    let repository = Arc::new(ModelRepository::new(
        path.clone(),
        options,
        Arc::clone(&inference),
    ));
    repository.start().await.unwrap();
    let held = repository.get("lc", "").await.unwrap();
    let layer = |name: &'static str| {
        let (inference, held) = (Arc::clone(&inference), Arc::clone(&held));
        async move {
            let (shape, data) = (vec![1, 1, 4, 4], to_bytes(&IMAGE).into());
            let layers = [name.to_owned()];
            let options = Options::default();
            let answer =
                tensor_inference::activations(&inference, &held, shape, data, &layers, &options).await;
            to_values(&answer.unwrap().activations.remove(0).into_bytes())
        }
    };
    // Renamed, with another in its place: the folder is followed.
    let away = folder.path().join("away");
    std::fs::rename(path.join("lc/1"), &away).unwrap();
    scaled(7).write(&path, "lc", 1);
    assert_eq!(layer("relu").await, relu(3));
    // Removed: the weights are still mapped.
    std::fs::remove_dir_all(away).unwrap();
    let expected = relu(3).into_iter().map(|value| value + bundle::OFFSET);
    assert!(layer("layer1").await.into_iter().eq(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_unloaded_and_loaded_when_told_to() {
    let (_folder, path) = repository();
    replace(&path, "lc", 1, scaled(1));
    let repository = alone(&path).await;
    let held = repository.get("lc", "").await.unwrap();
    repository.unload("lc").await.unwrap();
    let error = repository.get("lc", "").await.unwrap_err();
    assert!(error.to_string().contains("was unloaded"), "{error}");
    assert!(!repository.is_ready("lc", "").unwrap());

    // Neither a look at the repository nor a new version brings it back.
    replace(&path, "lc", 2, scaled(2));
    repository.refresh().await.unwrap();
    let states: Vec<_> = repository
        .index()
        .iter()
        .map(|entry| (entry.version, entry.state))
        .collect();
    assert_eq!(
        states,
        [(1, BundleState::Unavailable), (2, BundleState::Unavailable)]
    );

    repository.load("lc").await.unwrap();
    assert_eq!(repository.get("lc", "").await.unwrap().version, 2);
    let again = repository.get("lc", "1").await.unwrap();
    assert_ne!(again.id, held.id);
    // What is loaded and hasn't changed stays as it is.
    repository.load("lc").await.unwrap();
    assert_eq!(repository.get("lc", "1").await.unwrap().id, again.id);

    let mut broken = scaled(3);
    broken.data.clear();
    replace(&path, "lc", 3, broken);
    let error = repository.load("lc").await.unwrap_err().to_string();
    assert!(error.contains("version 3: tensor `scale`"), "{error}");
    let broken = &repository.index()[2];
    assert_eq!((broken.version, broken.state), (3, BundleState::Unavailable));
    assert!(broken.reason.contains("tensor `scale`"), "{}", broken.reason);
    assert_eq!(repository.get("lc", "").await.unwrap().version, 2);

    std::fs::remove_dir_all(path.join("lc")).unwrap();
    for error in [
        repository.load("lc").await.unwrap_err(),
        repository.load("../models/lc").await.unwrap_err(),
        repository.unload("lc").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("does not exist"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_no_one_holds_any_more_lets_go_of_its_files() {
    let (_folder, path) = repository();
    replace(&path, "lc", 1, scaled(1));
    let repository = alone(&path).await;
    let held = repository.get("lc", "").await.unwrap();
    let gone = Arc::downgrade(&held);
    replace(&path, "lc", 1, scaled(2));
    repository.refresh().await.unwrap();
    assert_eq!(
        repository.get("lc", "").await.unwrap().manifest.checkpoint_digest,
        "2"
    );
    assert!(gone.upgrade().is_some(), "a request still has it");
    drop(held);
    // The thread that computed with it may hold it a moment longer than its answer took.
    for _ in 0..6000 {
        if gone.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} still have it", gone.strong_count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_that_fails_is_reported_and_the_layers_before_are_served() {
    let (_folder, path) = repository();
    Bundle::failing_after_relu().write(&path, "lc", 1);
    let repository = alone(&path).await;
    let entry = &repository.index()[0];
    assert_eq!(entry.state, BundleState::Ready);
    assert!(entry.reason.contains("warm-up failed"), "{}", entry.reason);
    repository.get("lc", "").await.unwrap();
}
