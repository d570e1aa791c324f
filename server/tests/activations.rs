//! gRPC: activations of bundles that can be computed by hand, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::time::Duration;

use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{
    DataType, EncodedImages, GetActivationsRequest, GetModelRequest, ListModelsRequest, ModelSummary, Tensor,
};
use server::Limits;
use support::bundle::{self, Bundle, CLASSES, DIGEST};
use support::running::{Running, config};
use support::{png, to_bytes, to_values};
use tonic::transport::Channel;
use tonic::{Code, Status};

const IMAGE: [f32; 16] = [
    0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 0.125, 3.0, -3.0, 0.75, 1.5, -1.5, 0.0, 4.0, -0.5, 1.0,
];

fn tensor(images: &[[f32; 16]]) -> Stimuli {
    Stimuli::Tensor(Tensor {
        name: String::new(),
        shape: vec![images.len() as u64, 1, 4, 4],
        data_type: DataType::Float32 as i32,
        data: to_bytes(images.as_flattened()).into(),
        ..Default::default()
    })
}

fn encoded(images: Vec<Vec<u8>>) -> Stimuli {
    let images = images.into_iter().map(Into::into).collect();
    Stimuli::Images(EncodedImages { images })
}

fn request(model: &str, layers: &[&str], stimuli: impl Into<Option<Stimuli>>) -> GetActivationsRequest {
    GetActivationsRequest {
        model: model.into(),
        version: String::new(),
        layers: layers.iter().map(ToString::to_string).collect(),
        stimuli: stimuli.into(),
        ..Default::default()
    }
}

/// The activations of some layers; their names and shapes are checked.
async fn activations(
    client: &mut VentralClient<Channel>,
    model: &str,
    layers: &[&str],
    stimuli: Stimuli,
) -> Vec<Vec<f32>> {
    let response = client
        .get_activations(request(model, layers, stimuli))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.model, model);
    assert_eq!(response.version, "1");
    assert_eq!(response.checkpoint_digest, DIGEST);
    let names: Vec<_> = response
        .activations
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, layers);
    let values = response.activations.iter().map(|tensor| {
        assert_eq!(tensor.data_type(), DataType::Float32);
        let image: &[u64] = if tensor.name == "fc" { &[3] } else { &[2, 4, 4] };
        assert_eq!(tensor.shape[1..], *image);
        assert_eq!(tensor.shape.iter().product::<u64>() * 4, tensor.data.len() as u64);
        to_values(&tensor.data)
    });
    values.collect()
}

async fn refused(client: &mut VentralClient<Channel>, request: GetActivationsRequest) -> Status {
    client.get_activations(request).await.unwrap_err()
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_of_tensors_are_those_computed_by_hand() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;

    let other = IMAGE.map(|value| 1.0 - value);
    // Out of order and one layer twice: the answer is as asked.
    let layers = ["fc", "relu", "layer1", "relu"];
    let found = activations(&mut client, "hand", &layers, tensor(&[IMAGE, other])).await;
    assert_close(&found[0], &[bundle::fc(&IMAGE), bundle::fc(&other)].concat());
    assert_eq!(found[1], [bundle::relu(&IMAGE), bundle::relu(&other)].concat());
    assert_eq!(
        found[2],
        [bundle::layer1(&IMAGE), bundle::layer1(&other)].concat()
    );
    assert_eq!(found[3], found[1]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_of_images_are_those_of_their_pixels() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;

    // More images than are decoded in a group, each different.
    let pixels = |seed: u8| -> [u8; 16] {
        std::array::from_fn(|position| seed.wrapping_mul(7) ^ (position as u8 * 16))
    };
    let images: Vec<_> = (0..50).map(|seed| png(4, 4, &pixels(seed))).collect();
    let found = activations(&mut client, "hand", &["relu"], encoded(images)).await;
    let expected = (0..50).flat_map(|seed| bundle::relu(&pixels(seed).map(|pixel| f32::from(pixel) / 255.0)));
    assert_eq!(found[0], expected.collect::<Vec<_>>());

    // An image of another size is stretched to the network's.
    let found = activations(
        &mut client,
        "hand",
        &["relu"],
        encoded(vec![png(9, 6, &[51; 54])]),
    )
    .await;
    assert_close(&found[0], &bundle::relu(&[0.2; 16]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_a_run_is_put_together_again() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let mut config = config(repository.path(), Limits::default());
    config.scheduling.maximum_batch = 4.try_into().unwrap();
    let running = Running::start_config(config).await;
    let mut client = running.client().await;
    let images: Vec<_> = (0..10_u8)
        .map(|index| IMAGE.map(|value| value + f32::from(index)))
        .collect();
    let found = activations(&mut client, "hand", &["layer1", "fc"], tensor(&images)).await;
    assert_eq!(
        found[0],
        images.iter().flat_map(bundle::layer1).collect::<Vec<_>>()
    );
    assert_close(&found[1], &images.iter().flat_map(bundle::fc).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_time_get_their_own_answers() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let client = running.client().await;
    let requests = (0..32_u8).map(|index| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let image = IMAGE.map(|value| value * f32::from(index));
            let layer = ["relu", "layer1"][usize::from(index % 2)];
            let found = activations(&mut client, "hand", &[layer], tensor(&[image])).await;
            let expected = if layer == "relu" {
                bundle::relu(&image)
            } else {
                bundle::layer1(&image)
            };
            assert_eq!(found[0], expected);
        })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_waiting_however_many_sessions_and_threads_there_are() {
    let repository = tempfile::tempdir().unwrap();
    let models = ["left", "right"];
    for model in models {
        Bundle::new().write(repository.path(), model, 1);
    }
    for (instances, runs, delay) in [(1, 1, 0), (1, 3, 0), (2, 2, 1), (3, 2, 0)] {
        // What no thread is woken for fails, where nothing else comes for which one is.
        let limits = Limits {
            time: Duration::from_secs(20),
            ..Limits::default()
        };
        let mut config = config(repository.path(), limits);
        config.scheduling.instances = instances.try_into().unwrap();
        config.scheduling.concurrent_runs = Some(runs.try_into().unwrap());
        config.scheduling.maximum_delay = Duration::from_millis(delay);
        let running = Running::start_config(config).await;
        let client = running.client().await;
        let clients = (0..8_usize).map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move {
                for request in 0..40 {
                    let image = IMAGE.map(|value| value * (number + request) as f32);
                    let layer = ["relu", "layer1"][request % 2];
                    let model = models[(number + request / 2) % 2];
                    let found = activations(&mut client, model, &[layer], tensor(&[image])).await;
                    let expected = match layer {
                        "relu" => bundle::relu(&image),
                        _ => bundle::layer1(&image),
                    };
                    assert_eq!(found[0], expected);
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_layer_needs_nothing_of_the_later_ones() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::failing_after_relu().write(repository.path(), "failing", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    let found = activations(&mut client, "failing", &["relu"], tensor(&[IMAGE])).await;
    assert_eq!(found[0], bundle::relu(&IMAGE));

    let status = refused(&mut client, request("failing", &["relu", "fc"], tensor(&[IMAGE]))).await;
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        status.message(),
        "internal error; the server's log has the details"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_answered_with_what_does() {
    let repository = tempfile::tempdir().unwrap();
    for version in [9, 10] {
        Bundle::new().write(repository.path(), "hand", version);
    }
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;

    let status = refused(
        &mut client,
        request("hand", &["relu", "layer9"], tensor(&[IMAGE])),
    )
    .await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("`layer9`"), "{status}");
    assert!(status.message().contains("relu, layer1, fc"), "{status}");

    let status = refused(&mut client, request("head", &["relu"], tensor(&[IMAGE]))).await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("there are: hand"), "{status}");

    for version in ["8", "09", "newest", "-1"] {
        let mut request = request("hand", &["relu"], tensor(&[IMAGE]));
        request.version = version.into();
        let status = refused(&mut client, request).await;
        assert_eq!(status.code(), Code::NotFound);
        assert!(status.message().contains("it has: 9, 10"), "{status}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_stimuli_are_refused_with_what_would_be_right() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    let good = png(4, 4, &[0; 16]);

    let mut truncated = good.clone();
    truncated.truncate(good.len() - 20);
    for bad in [b"not an image".to_vec(), vec![], truncated] {
        let images = encoded(vec![good.clone(), good.clone(), bad, good.clone()]);
        let status = refused(&mut client, request("hand", &["relu"], images)).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(
            status.message().starts_with("image 2 (counted from 0): "),
            "{status}"
        );
    }

    let wrong = |shape: &[u64], data_type, bytes: usize| {
        Stimuli::Tensor(Tensor {
            name: String::new(),
            shape: shape.to_vec(),
            data_type,
            data: vec![0; bytes].into(),
            ..Default::default()
        })
    };
    let float = DataType::Float32 as i32;
    for (stimuli, expected) in [
        (
            wrong(&[1, 1, 5, 5], float, 100),
            "expected float32 of shape [N, 1, 4, 4]",
        ),
        (wrong(&[16], float, 64), "expected float32 of shape [N, 1, 4, 4]"),
        (wrong(&[2, 1, 4, 4], float, 64), "needs 128 bytes, but it has 64"),
        (wrong(&[u64::MAX, 1, 4, 4], float, 64), "expected float32"),
        (wrong(&[0, 1, 4, 4], float, 0), "no images"),
        (wrong(&[1, 1, 4, 4], 0, 64), "DATA_TYPE_FLOAT32"),
        (wrong(&[1, 1, 4, 4], 77, 64), "DATA_TYPE_FLOAT32"),
        (encoded(vec![]), "no images"),
    ] {
        let status = refused(&mut client, request("hand", &["relu"], stimuli)).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }

    let status = refused(&mut client, request("hand", &["relu"], None)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = refused(&mut client, request("hand", &[], tensor(&[IMAGE]))).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("no layers"), "{status}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_a_limit_are_refused_with_the_limit() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let limits = Limits {
        images: 8,
        // Five images' input (64 bytes each), two and a half of `relu` (128 bytes each).
        tensor_bytes: 320,
        image: model::image::Limits {
            bytes: 1000,
            pixels: 100,
        },
        ..Limits::default()
    };
    let running = Running::start_with(repository.path(), limits).await;
    let mut client = running.client().await;
    for (stimuli, layers, expected) in [
        (tensor(&[IMAGE; 9]), vec!["fc"], "has 9 images, at most 8"),
        (
            tensor(&[IMAGE; 6]),
            vec!["fc"],
            "the network's input would take 384 bytes, at most 320",
        ),
        (
            tensor(&[IMAGE; 3]),
            vec!["relu"],
            "the activations would take 384 bytes, at most 320",
        ),
        (
            tensor(&[IMAGE]),
            vec!["relu"; 3],
            "the activations would take 384 bytes, at most 320",
        ),
        (
            encoded(vec![png(11, 10, &[0; 110])]),
            vec!["fc"],
            "11x10 pixels, at most 100",
        ),
        (
            encoded(vec![vec![0; 1001]]),
            vec!["fc"],
            "has 1001 bytes, at most 1000",
        ),
    ] {
        let status = refused(&mut client, request("hand", &layers, stimuli)).await;
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    activations(&mut client, "hand", &["relu"], tensor(&[IMAGE; 2])).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_their_layers_are_listed() {
    let repository = tempfile::tempdir().unwrap();
    for (model, version) in [("b", 2), ("b", 10), ("a", 1)] {
        Bundle::new().write(repository.path(), model, version);
    }
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;

    let models = client
        .list_models(ListModelsRequest {})
        .await
        .unwrap()
        .into_inner()
        .models;
    let summary = |name: &str, versions: &[&str]| ModelSummary {
        name: name.into(),
        versions: versions.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(models, [summary("a", &["1"]), summary("b", &["2", "10"])]);

    let request = |version: &str| GetModelRequest {
        model: "b".into(),
        version: version.into(),
    };
    let model = client.get_model(request("")).await.unwrap().into_inner();
    assert_eq!((model.name.as_str(), model.version.as_str()), ("b", "10"));
    let layers: Vec<_> = model
        .layers
        .iter()
        .map(|layer| (layer.name.as_str(), layer.shape.as_slice()))
        .collect();
    let expected: [(&str, &[u64]); 3] = [("relu", &[2, 4, 4]), ("layer1", &[2, 4, 4]), ("fc", &[3])];
    assert_eq!(layers, expected);
    assert_eq!(model.input_shape, [1, 4, 4]);
    assert_eq!(model.class_names, CLASSES);
    assert_eq!(model.checkpoint_digest, DIGEST);
    assert_eq!(model.execution_provider, "CPU");
    let preprocessing: model::Preprocessing = serde_json::from_str(&model.preprocessing_json).unwrap();
    assert_eq!(preprocessing, Bundle::new().manifest.preprocessing);

    let model = client.get_model(request("2")).await.unwrap().into_inner();
    assert_eq!(model.version, "2");
    assert_eq!(
        client.get_model(request("3")).await.unwrap_err().code(),
        Code::NotFound
    );
    running.stop().await;
}
