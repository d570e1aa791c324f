//! Fitted projections: what clients are told, what the projections do, what is refused, clients that leave.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use proto::ventral::v1::fit_projections_request::Part;
use proto::ventral::v1::fit_projections_response::Part as Answer;
use proto::ventral::v1::get_activations_request::Stimuli as StimuliMessage;
use proto::ventral::v1::stimulus_group::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{
    ActivationOptions, DataType, DeleteProjectionRequest, EncodedImages, FitPhase, FitProgress,
    FitProjectionsRequest, FitProjectionsResponse, FitResult, FitStart, GetActivationsRequest,
    ListProjectionsRequest, Pooling, StimulusGroup, Tensor,
};
use server::Limits;
use support::bundle::{Bundle, DIGEST};
use support::running::{Running, config};
use support::{png, to_values};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Of `relu` and `layer1`.
const FEATURES: usize = 32;

/// Waits for something that happens soon.
const PATIENCE: Duration = Duration::from_secs(60);

fn image(seed: usize) -> Vec<u8> {
    png(
        4,
        4,
        &std::array::from_fn::<u8, 16, _>(|position| ((seed + 1) * (position * 37 + 11) % 251) as u8),
    )
}

fn start() -> FitStart {
    FitStart {
        model: "hand".into(),
        layers: vec!["relu".into(), "layer1".into()],
        name: "pca".into(),
        components: 6,
        ..Default::default()
    }
}

fn message(part: Part) -> FitProjectionsRequest {
    FitProjectionsRequest { part: Some(part) }
}

fn group(ids: &[&str], images: Vec<Vec<u8>>) -> FitProjectionsRequest {
    message(Part::Stimuli(StimulusGroup {
        ids: ids.iter().map(ToString::to_string).collect(),
        stimuli: Some(Stimuli::Images(EncodedImages {
            images: images.into_iter().map(Into::into).collect(),
        })),
    }))
}

/// Groups of three images.
fn groups(count: usize) -> Vec<FitProjectionsRequest> {
    let seeds: Vec<_> = (0..count).collect();
    seeds
        .chunks(3)
        .map(|seeds| group(&[], seeds.iter().map(|&seed| image(seed)).collect()))
        .collect()
}

async fn begin(
    client: &mut VentralClient<Channel>,
    start: FitStart,
    groups: impl Stream<Item = FitProjectionsRequest> + Send + 'static,
) -> Result<Streaming<FitProjectionsResponse>, Status> {
    let messages = stream::iter([message(Part::Start(start))]).chain(groups);
    Ok(client.fit_projections(messages).await?.into_inner())
}

/// What a fit told, and what it gave.
async fn fit(
    client: &mut VentralClient<Channel>,
    start: FitStart,
    groups: Vec<FitProjectionsRequest>,
) -> Result<(Vec<FitProjectionsResponse>, FitResult), Status> {
    let mut answers = begin(client, start, stream::iter(groups)).await?;
    let mut told = Vec::new();
    loop {
        let answer = answers.message().await?.unwrap();
        if let Some(Answer::Result(result)) = answer.part {
            assert!(answers.message().await?.is_none());
            return Ok((told, result));
        }
        told.push(answer);
    }
}

fn progress(answer: &FitProjectionsResponse) -> &FitProgress {
    match &answer.part {
        Some(Answer::Progress(progress)) => progress,
        other => panic!("{other:?} instead of the progress"),
    }
}

/// Activations of the first images, a row each.
async fn activations(
    client: &mut VentralClient<Channel>,
    layer: &str,
    count: usize,
    projections: &[&str],
    pooling: Pooling,
) -> Result<Vec<Vec<f64>>, Status> {
    let request = GetActivationsRequest {
        model: "hand".into(),
        layers: vec![layer.into()],
        stimuli: Some(StimuliMessage::Images(EncodedImages {
            images: (0..count).map(|seed| image(seed).into()).collect(),
        })),
        options: Some(ActivationOptions {
            projections: projections.iter().map(ToString::to_string).collect(),
            pooling: pooling as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = client.get_activations(request).await?.into_inner();
    let values = to_values(&answer.activations[0].data);
    let row = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
    Ok(values.chunks(values.len() / count).map(row).collect())
}

async fn names(client: &mut VentralClient<Channel>) -> Vec<String> {
    let request = ListProjectionsRequest {
        model: "hand".into(),
        ..Default::default()
    };
    let listed = client.list_projections(request).await.unwrap().into_inner();
    listed
        .projections
        .into_iter()
        .map(|projection| projection.name)
        .collect()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    std::iter::zip(left, right)
        .map(|(left, right)| left * right)
        .sum()
}

/// The squared distance of two rows.
fn distance(left: &[f64], right: &[f64]) -> f64 {
    std::iter::zip(left, right)
        .map(|(left, right)| (left - right).powi(2))
        .sum()
}

async fn serve(change: impl FnOnce(&mut server::Config)) -> (TempDir, Running) {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    change(&mut config);
    let running = Running::start_config(config).await;
    (repository, running)
}

/// Waits until nothing is left of fits.
async fn wait_for_an_empty_disk(running: &Running) {
    let empty = async {
        while running.state().fitter.disk_used() > 0 || !running.state().fitter.is_free() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, empty).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fitted_projections_are_principal_components() {
    let (_repository, running) = serve(|_| {}).await;
    let mut client = running.client().await;
    let (told, result) = fit(&mut client, start(), groups(20)).await.unwrap();
    assert_eq!(
        (&*told[0].model, &*told[0].version, &*told[0].checkpoint_digest),
        ("hand", "1", DIGEST)
    );
    assert!(told[1..].iter().all(|answer| answer.model.is_empty()));
    let phases: Vec<_> = told.iter().map(|answer| progress(answer).phase()).collect();
    assert_eq!(phases[0], FitPhase::Gathering);
    let images: Vec<_> = told.iter().map(|answer| progress(answer).images).collect();
    assert!(images.is_sorted());
    assert_eq!(result.unreadable, []);
    let found: Vec<_> = result
        .projections
        .iter()
        .map(|fitted| fitted.projection.clone().unwrap())
        .collect();
    let described: Vec<_> = found
        .iter()
        .map(|projection| (&*projection.name, &*projection.layer))
        .collect();
    assert_eq!(described, [("pca.relu", "relu"), ("pca.layer1", "layer1")]);
    assert_eq!(names(&mut client).await, ["pca.layer1", "pca.relu"]);
    for fitted in &result.projections {
        let projection = fitted.projection.as_ref().unwrap();
        assert_eq!(
            (projection.features, projection.components, projection.stored),
            (FEATURES as u64, 6, true)
        );
        assert_eq!((fitted.images, fitted.exact), (20, true));
        let rows = activations(
            &mut client,
            &projection.layer,
            20,
            &[&projection.name],
            Pooling::Unspecified,
        )
        .await
        .unwrap();
        // Projected, the images are centred and uncorrelated, and vary as much as was told.
        for first in 0..6 {
            let column = |index: usize| rows.iter().map(|row| row[index]).collect::<Vec<_>>();
            assert!(column(first).iter().sum::<f64>().abs() < 1e-4);
            for second in 0..6 {
                let covariance = dot(&column(first), &column(second)) / 19.0;
                let expected = if first == second {
                    fitted.explained_variance[first]
                } else {
                    0.0
                };
                assert!(
                    (covariance - expected).abs() < 1e-4,
                    "{covariance} instead of {expected}"
                );
            }
        }
        assert!(
            fitted
                .explained_variance
                .is_sorted_by(|first, second| first >= second)
        );
    }

    // All components keep all distances; what was fitted before is replaced.
    let all = FitStart {
        components: 0,
        ..start()
    };
    let (_, result) = fit(&mut client, all, groups(20)).await.unwrap();
    let fitted = &result.projections[0];
    let explained: f64 = fitted.explained_variance.iter().sum();
    assert!((explained / fitted.total_variance - 1.0).abs() < 1e-6);
    assert_eq!(names(&mut client).await.len(), 2);
    let whole = activations(&mut client, "relu", 20, &[], Pooling::Unspecified)
        .await
        .unwrap();
    let projected = activations(&mut client, "relu", 20, &["pca.relu"], Pooling::Unspecified)
        .await
        .unwrap();
    for other in 1..20 {
        let expected = distance(&whole[0], &whole[other]);
        assert!((distance(&projected[0], &projected[other]) - expected).abs() < 1e-4);
    }

    for name in ["pca.relu", "pca.layer1"] {
        let request = DeleteProjectionRequest {
            model: "hand".into(),
            name: name.into(),
            ..Default::default()
        };
        client.delete_projection(request).await.unwrap();
    }
    assert_eq!(names(&mut client).await, [""; 0]);
    wait_for_an_empty_disk(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_made_into_what_the_options_say() {
    let (_repository, running) = serve(|_| {}).await;
    let mut client = running.client().await;
    let pooled = FitStart {
        layers: vec!["relu".into()],
        options: Some(ActivationOptions {
            pooling: Pooling::SpatialMean as i32,
            ..Default::default()
        }),
        skip_unreadable: true,
        ..start()
    };
    let with_unreadable = vec![
        group(&["a", "b"], vec![image(0), image(1)]),
        group(&["c", "d"], vec![b"nothing".to_vec(), image(2)]),
        group(&["e"], vec![b"nothing".to_vec()]),
        group(&["f"], vec![image(3)]),
    ];
    let (_, result) = fit(&mut client, pooled, with_unreadable).await.unwrap();
    let fitted = &result.projections[0];
    let projection = fitted.projection.as_ref().unwrap();
    assert_eq!(
        (fitted.images, projection.features, projection.components),
        (4, 2, 1),
        "one of the two channels is always 0"
    );
    let unreadable: Vec<_> = result
        .unreadable
        .iter()
        .map(|image| (image.index, &*image.id))
        .collect();
    assert_eq!(unreadable, [(2, "c"), (4, "e")]);
    let rows = activations(&mut client, "relu", 4, &["pca.relu"], Pooling::SpatialMean)
        .await
        .unwrap();
    let variance = rows.iter().map(|row| dot(row, row)).sum::<f64>() / 3.0;
    assert!((variance - fitted.total_variance).abs() < 1e-5);
    let other = activations(&mut client, "relu", 4, &["pca.relu"], Pooling::Unspecified)
        .await
        .unwrap_err();
    assert!(other.message().contains("takes 2 values an image"), "{other}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_fitted_is_refused() {
    let (repository, running) = serve(|_| {}).await;
    let stored = repository.path().join("hand/1/projections");
    std::fs::create_dir_all(&stored).unwrap();
    std::fs::write(stored.join("mine.relu.safetensors"), b"any").unwrap();
    let mut client = running.client().await;
    let options = |options| FitStart {
        options: Some(options),
        ..start()
    };
    let cases = [
        (
            FitStart {
                model: "none".into(),
                ..start()
            },
            Code::NotFound,
            "`none` does not exist",
        ),
        (
            FitStart {
                layers: vec!["layer9".into()],
                ..start()
            },
            Code::NotFound,
            "no layer `layer9`",
        ),
        (
            FitStart {
                layers: vec![],
                ..start()
            },
            Code::InvalidArgument,
            "names no layers",
        ),
        (
            FitStart {
                layers: vec!["relu".into(), "relu".into()],
                ..start()
            },
            Code::InvalidArgument,
            "`relu` is named more than once",
        ),
        (
            FitStart {
                name: "a/b".into(),
                ..start()
            },
            Code::InvalidArgument,
            "not `a/b.relu`",
        ),
        (
            FitStart {
                name: String::new(),
                ..start()
            },
            Code::InvalidArgument,
            "`name` is empty",
        ),
        (
            FitStart {
                name: "x".repeat(128),
                ..start()
            },
            Code::InvalidArgument,
            "1 to 128 letters",
        ),
        (
            FitStart {
                name: "mine".into(),
                ..start()
            },
            Code::InvalidArgument,
            "stored beside the model",
        ),
        (
            options(ActivationOptions {
                projections: vec!["pca".into()],
                ..Default::default()
            }),
            Code::InvalidArgument,
            "no projections, data type or compression",
        ),
        (
            options(ActivationOptions {
                data_type: DataType::Float16 as i32,
                ..Default::default()
            }),
            Code::InvalidArgument,
            "no projections, data type or compression",
        ),
    ];
    for (start, code, expected) in cases {
        let status = fit(&mut client, start, groups(3)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    let wrong_shape = message(Part::Stimuli(StimulusGroup {
        stimuli: Some(Stimuli::Tensor(Tensor {
            shape: vec![1, 1, 5, 5],
            data_type: DataType::Float32 as i32,
            data: vec![0; 100].into(),
            ..Default::default()
        })),
        ..Default::default()
    }));
    for (messages, expected) in [
        (vec![], "0 images came: a fit takes two at least"),
        (vec![group(&[], vec![image(1)])], "1 images came"),
        (
            vec![message(Part::Start(start()))],
            "only a fit's first message may be `start`",
        ),
        (vec![FitProjectionsRequest { part: None }], "expected `stimuli`"),
        (
            vec![group(&["a"], vec![image(1), image(2)])],
            "it has 1 ids for 2 stimuli",
        ),
        (
            vec![group(&["a", "b"], vec![image(1), b"nothing".to_vec()])],
            "stimulus `b` in group 0 (counted from 0): image 1",
        ),
        (
            vec![group(&[], vec![image(1), image(2)]), wrong_shape],
            "not the network's input",
        ),
    ] {
        let status = fit(&mut client, start(), messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    let status = client.fit_projections(stream::iter(groups(3))).await.unwrap_err();
    assert_eq!(status.message(), "a fit's first message must be `start`");
    std::fs::remove_dir_all(&stored).unwrap();
    assert_eq!(names(&mut client).await, [""; 0]);
    wait_for_an_empty_disk(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fits_past_a_limit_say_which() {
    for (disk, memory, expected) in [
        (
            30_000,
            1 << 30,
            "more than 30000 bytes of the disk (option `fitting.disk`)",
        ),
        (
            1 << 30,
            5000,
            "than a fit may have, 5000 bytes (option `fitting.memory`)",
        ),
    ] {
        let (_repository, running) = serve(|config| {
            config.fitting.disk = disk;
            config.fitting.memory = memory;
        })
        .await;
        let mut client = running.client().await;
        let status = fit(&mut client, start(), groups(300)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains(expected), "{status}");
        wait_for_an_empty_disk(&running).await;
        assert_eq!(names(&mut client).await, [""; 0]);
        // What fits is fitted.
        fit(&mut client, start(), groups(3)).await.unwrap();
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_makes_room_for_the_next() {
    let (_repository, running) = serve(|_| {}).await;
    let mut client = running.client().await;
    let elsewhere = Runtime::new().unwrap();
    let mut leaving = running.client_on(&elsewhere).await;
    let endless = stream::iter(groups(6)).chain(stream::pending());
    let mut first = begin(&mut leaving, start(), endless).await.unwrap();
    while progress(&first.message().await.unwrap().unwrap()).images < 6 {}
    assert!(running.state().fitter.disk_used() > 0);

    let other = FitStart {
        name: "other".into(),
        ..start()
    };
    let mut second = begin(&mut client, other, stream::iter(groups(9))).await.unwrap();
    let told = second.message().await.unwrap().unwrap();
    assert_eq!(progress(&told).phase(), FitPhase::Waiting);
    // What it asks for was checked all the same.
    let wrong = FitStart {
        layers: vec!["layer9".into()],
        ..start()
    };
    assert_eq!(
        fit(&mut client, wrong, vec![]).await.unwrap_err().code(),
        Code::NotFound
    );

    // It ends without a word.
    elsewhere.shutdown_background();
    let finished = async {
        while let Some(answer) = second.message().await.unwrap() {
            if let Some(Answer::Result(result)) = answer.part {
                return result;
            }
        }
        panic!("the fit ended without a result");
    };
    let result = tokio::time::timeout(PATIENCE, finished).await.unwrap();
    assert_eq!(result.projections[0].images, 9);
    assert_eq!(names(&mut client).await, ["other.layer1", "other.relu"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_loses_its_place() {
    let (_repository, running) = serve(|config| config.limits.time = Duration::from_secs(8)).await;
    let mut client = running.client().await;
    let silent = stream::iter(groups(3)).chain(stream::pending());
    let mut answers = begin(&mut client, start(), silent).await.unwrap();
    let ended = async {
        loop {
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    wait_for_an_empty_disk(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fitted_projections_are_there_after_a_restart() {
    let (repository, running) = serve(|_| {}).await;
    let mut client = running.client().await;
    fit(&mut client, start(), groups(20)).await.unwrap();
    let before = activations(&mut client, "relu", 20, &["pca.relu"], Pooling::Unspecified)
        .await
        .unwrap();
    assert_eq!(running.state().fitter.disk_used(), 0);
    running.stop().await;

    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    assert_eq!(names(&mut client).await, ["pca.layer1", "pca.relu"]);
    let after = activations(&mut client, "relu", 20, &["pca.relu"], Pooling::Unspecified)
        .await
        .unwrap();
    assert_eq!(before, after);
    let request = DeleteProjectionRequest {
        model: "hand".into(),
        name: "pca.relu".into(),
        ..Default::default()
    };
    client.delete_projection(request).await.unwrap();
    assert_eq!(names(&mut client).await, ["pca.layer1"]);
    let left = std::fs::read_dir(repository.path().join("hand/1/projections")).unwrap();
    assert_eq!(left.count(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fitted_projections_last_as_long_as_the_server_where_the_repository_can_not_be_written() {
    let (repository, running) = serve(|_| {}).await;
    // A file is where the folder would be.
    std::fs::write(repository.path().join("hand/1/projections"), b"").unwrap();
    let mut client = running.client().await;
    let (_, result) = fit(&mut client, start(), groups(20)).await.unwrap();
    assert!(!result.projections[0].projection.as_ref().unwrap().stored);
    assert_eq!(names(&mut client).await, ["pca.layer1", "pca.relu"]);
    activations(&mut client, "relu", 20, &["pca.relu"], Pooling::Unspecified)
        .await
        .unwrap();
    assert!(running.state().fitter.disk_used() > 0);
    running.stop().await;
}
