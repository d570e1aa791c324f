//! Streams: answers in order, images that can't be read, clients that read slowly or leave.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use prost::Message as _;
use proto::ventral::v1::stimulus_group::Stimuli;
use proto::ventral::v1::stream_activations_request::Part;
use proto::ventral::v1::{
    ActivationOptions, DataType, EncodedImages, Priority, StimulusGroup, StreamActivationsRequest,
    StreamStart, Tensor,
};
use server::Limits;
use support::bundle::{self, Bundle, DIGEST};
use support::running::{Running, config};
use support::{png, to_bytes, to_values};
use tonic::Code;

fn image(seed: usize) -> [u8; 16] {
    std::array::from_fn(|position| (seed * 7 + position * 16) as u8)
}

fn relu(seed: usize) -> Vec<f32> {
    bundle::relu(&image(seed).map(|pixel| f32::from(pixel) / 255.0))
}

fn message(part: Part) -> StreamActivationsRequest {
    StreamActivationsRequest { part: Some(part) }
}

fn start(skip_unreadable: bool) -> StreamActivationsRequest {
    message(Part::Start(StreamStart {
        model: "hand".into(),
        layers: vec!["relu".into()],
        skip_unreadable,
        ..Default::default()
    }))
}

fn group(ids: &[&str], images: Vec<Vec<u8>>) -> StreamActivationsRequest {
    message(Part::Stimuli(StimulusGroup {
        ids: ids.iter().map(ToString::to_string).collect(),
        stimuli: Some(Stimuli::Images(EncodedImages {
            images: images.into_iter().map(Into::into).collect(),
        })),
    }))
}

fn single(seed: usize) -> StreamActivationsRequest {
    group(&[&format!("stimulus {seed}")], vec![png(4, 4, &image(seed))])
}

async fn running() -> (tempfile::TempDir, Running) {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    (repository, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_order_with_the_caller_s_names() {
    let (_repository, running) = running().await;
    let mut client = running.client().await;
    let requests = stream::iter(std::iter::once(start(false)).chain((0..1000).map(single)));
    let mut answers = client.stream_activations(requests).await.unwrap().into_inner();
    for seed in 0..1000 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.ids, [format!("stimulus {seed}")]);
        assert_eq!(answer.activations[0].shape, [1, 2, 4, 4]);
        assert_eq!(to_values(&answer.activations[0].data), relu(seed));
        let first = if seed == 0 {
            ("hand", "1", DIGEST)
        } else {
            ("", "", "")
        };
        assert_eq!(
            (&*answer.model, &*answer.version, &*answer.checkpoint_digest),
            first
        );
    }
    assert!(answers.message().await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_tensors_are_answered_whole() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    config.scheduling.maximum_batch = 4.try_into().unwrap();
    // A window of a single stimulus: the groups are larger.
    config.limits.stream_bytes = 1;
    let running = Running::start_config(config).await;
    let mut client = running.client().await;
    let images = (0..10).map(|seed| png(4, 4, &image(seed))).collect();
    let values: Vec<_> = (0..10)
        .flat_map(|seed| image(seed).map(|pixel| f32::from(pixel) / 255.0))
        .collect();
    let tensor = Stimuli::Tensor(Tensor {
        shape: vec![10, 1, 4, 4],
        data_type: DataType::Float32 as i32,
        data: to_bytes(&values).into(),
        ..Default::default()
    });
    let tensor = message(Part::Stimuli(StimulusGroup {
        ids: vec![],
        stimuli: Some(tensor),
    }));
    let requests = stream::iter([start(false), group(&[], images), tensor]);
    let mut answers = client.stream_activations(requests).await.unwrap().into_inner();
    for _ in 0..2 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.ids, [""; 0]);
        let expected: Vec<_> = (0..10).flat_map(relu).collect();
        assert_eq!(to_values(&answer.activations[0].data), expected);
    }
    assert!(answers.message().await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_read_is_reported_or_ends_the_stream() {
    let (_repository, running) = running().await;
    let mut client = running.client().await;
    let groups = || {
        let good = |seed| png(4, 4, &image(seed));
        [
            group(&["a"], vec![good(0)]),
            group(&["b", "c", "d"], vec![good(1), b"no image".to_vec(), good(2)]),
            group(&["e"], vec![vec![]]),
            group(&["f"], vec![good(3)]),
        ]
    };
    let requests = stream::iter(std::iter::once(start(true)).chain(groups()));
    let answers = client.stream_activations(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    let ids: Vec<_> = answers.iter().map(|answer| answer.ids.join(" ")).collect();
    assert_eq!(ids, ["a", "b d", "", "f"]);
    assert_eq!(
        to_values(&answers[1].activations[0].data),
        [relu(1), relu(2)].concat()
    );
    let unreadable = &answers[1].unreadable[0];
    assert_eq!((unreadable.index, unreadable.id.as_str()), (1, "c"));
    assert!(unreadable.message.contains("not an image"), "{unreadable:?}");
    assert_eq!(answers[2].activations[0].shape, [0, 2, 4, 4]);
    assert_eq!(answers[2].unreadable[0].id, "e");

    let requests = stream::iter(std::iter::once(start(false)).chain(groups()));
    let mut answers = client.stream_activations(requests).await.unwrap().into_inner();
    assert_eq!(
        answers.message().await.unwrap().unwrap().ids,
        ["a"],
        "what came before is answered"
    );
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("stimulus `c` in group 1"), "{status}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_wrong_say_where() {
    let (_repository, running) = running().await;
    let mut client = running.client().await;
    let empty = StreamActivationsRequest { part: None };
    let unknown = message(Part::Start(StreamStart {
        model: "hand".into(),
        layers: vec!["layer9".into()],
        ..Default::default()
    }));
    for (requests, code, expected) in [
        (vec![], Code::InvalidArgument, "first message must be `start`"),
        (
            vec![single(0)],
            Code::InvalidArgument,
            "first message must be `start`",
        ),
        (vec![unknown], Code::NotFound, "relu, layer1, fc"),
        (
            vec![start(false), single(0), start(false)],
            Code::InvalidArgument,
            "group 1",
        ),
        (
            vec![start(false), empty],
            Code::InvalidArgument,
            "the message is empty",
        ),
        (
            vec![start(false), group(&["a", "b"], vec![png(4, 4, &image(0))])],
            Code::InvalidArgument,
            "2 ids for 1 stimuli",
        ),
        (
            vec![start(false), group(&[], vec![])],
            Code::InvalidArgument,
            "no images",
        ),
    ] {
        let status = match client.stream_activations(stream::iter(requests)).await {
            Err(status) => status,
            Ok(answers) => {
                let answers = answers.into_inner().collect::<Vec<_>>().await;
                answers.into_iter().find_map(Result::err).unwrap()
            }
        };
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_not_read_from() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    config.scheduling.maximum_batch = 4.try_into().unwrap();
    let running = Running::start_config(config).await;
    let mut client = running.client().await;
    const GROUPS: usize = 8000;
    // What may be on its way: the server's window for a stream and the client's, each with what the ends buffer beside it;
    // and the groups in work, of which each is larger than the stream's own window.
    const SENT_BYTES: usize = (4 + 1) << 20;
    const ANSWERED_BYTES: usize = (2 + 1) << 20;
    const IN_WORK: usize = 4 * 4;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    // 32 images a group: 4 KiB of activations.
    let images: Vec<_> = (0..32).map(|seed| png(4, 4, &image(seed))).collect();
    let group_bytes = group(&[], images.clone()).encoded_len();
    let most = SENT_BYTES / group_bytes + ANSWERED_BYTES / (32 * 32 * 4) + IN_WORK;
    assert!(
        most < GROUPS / 2,
        "{most} groups may be on their way: this test needs more"
    );
    let groups = (0..GROUPS).map(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        group(&[], images.clone())
    });
    let requests = stream::iter(std::iter::once(start(false)).chain(groups));
    let mut answers = client.stream_activations(requests).await.unwrap().into_inner();
    // Until the client has stopped sending.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    // Others are served meanwhile.
    let mut other = running.client().await;
    let requests = stream::iter([start(false), single(1)]);
    let answer = other
        .stream_activations(requests)
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap();
    assert_eq!(to_values(&answer.unwrap().activations[0].data), relu(1));

    let sent = sent.load(Ordering::Relaxed);
    assert!(
        sent <= most,
        "{sent} groups were taken in though nothing was read; {most} may be on their way"
    );
    let mut count = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.activations[0].data.len(), 32 * 32 * 4);
        count += 1;
    }
    assert_eq!(count, GROUPS);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_by_the_hundred_leave_nothing_behind() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    // Nothing is computed before a batch is full, so that what they send waits.
    config.scheduling.maximum_delay = Duration::from_secs(3600);
    config.scheduling.maximum_batch = 1000.try_into().unwrap();
    let running = Running::start_config(config).await;
    // Clients with a runtime of their own, whose end closes their connections in the middle of everything.
    let clients = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for seed in 0..200 {
        let mut client = running.client_on(&clients).await;
        clients.spawn(async move {
            // A stream that stays open: its client is not done.
            let requests = stream::iter([start(false), single(seed)]).chain(stream::pending());
            let answers = client.stream_activations(requests).await.unwrap().into_inner();
            answers.for_each(|_| std::future::ready(())).await;
        });
    }
    running.wait_for_waiting(200).await;
    clients.shutdown_background();
    running.wait_for_waiting(0).await;

    // A full batch is computed at once.
    let mut client = running.client().await;
    let images = (0..1000).map(|seed| png(4, 4, &image(seed))).collect();
    let options = ActivationOptions {
        priority: Priority::Interactive as i32,
        ..Default::default()
    };
    let start = message(Part::Start(StreamStart {
        model: "hand".into(),
        layers: vec!["relu".into()],
        options: Some(options),
        ..Default::default()
    }));
    let requests = stream::iter([start, group(&[], images)]);
    let answers = client.stream_activations(requests).await.unwrap().into_inner();
    assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>().await.len(), 1);
    running.stop().await;
}
