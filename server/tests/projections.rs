//! Projections: uploaded, stored beside a model, used, listed, deleted, refused.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::collections::HashMap;
use std::path::Path;

use futures_util::stream;
use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::put_projection_request::Part;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{
    ActivationOptions, DataType, DeleteProjectionRequest, GetActivationsRequest, ListProjectionsRequest,
    Pooling, Projection, ProjectionStart, PutProjectionRequest, Tensor,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use server::Limits;
use support::bundle::{self, Bundle};
use support::running::Running;
use support::{http_client, to_bytes, to_values};
use tonic::transport::Channel;
use tonic::{Code, Status};

const IMAGE: [f32; 16] = [
    0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 0.125, 3.0, -3.0, 0.75, 1.5, -1.5, 0.0, 4.0, -0.5, 1.0,
];

/// Of `layer1`, which has 32 values.
const FEATURES: usize = 32;
const COMPONENTS: usize = 5;

fn component(row: usize, column: usize) -> f32 {
    ((row * 7 + column * 3) % 11) as f32 * 0.125 - 0.5
}

fn mean(column: usize) -> f32 {
    column as f32 * 0.0625
}

/// A projection's file.
fn file(layer: &str, features: usize, with_mean: bool) -> Vec<u8> {
    let components: Vec<f32> = (0..COMPONENTS)
        .flat_map(|row| (0..features).map(move |column| component(row, column)))
        .collect();
    let components = to_bytes(&components);
    let means = to_bytes(&(0..features).map(mean).collect::<Vec<_>>());
    let view = |shape: Vec<usize>, bytes| TensorView::new(Dtype::F32, shape, bytes).unwrap();
    let mut tensors = vec![("components", view(vec![COMPONENTS, features], &components))];
    if with_mean {
        tensors.push(("mean", view(vec![features], &means)));
    }
    let metadata = HashMap::from([("layer".to_owned(), layer.to_owned())]);
    safetensors::serialize(tensors, Some(metadata)).unwrap()
}

fn project(values: &[f32], with_mean: bool) -> Vec<f32> {
    let dot = |row: usize| {
        let products = values.iter().enumerate().map(|(column, &value)| {
            let centred = if with_mean { value - mean(column) } else { value };
            f64::from(centred) * f64::from(component(row, column))
        });
        products.sum::<f64>() as f32
    };
    (0..COMPONENTS).map(dot).collect()
}

fn request(layers: &[&str], projections: &[&str], pooling: Pooling) -> GetActivationsRequest {
    GetActivationsRequest {
        model: "hand".into(),
        layers: layers.iter().map(ToString::to_string).collect(),
        stimuli: Some(Stimuli::Tensor(Tensor {
            shape: vec![2, 1, 4, 4],
            data_type: DataType::Float32 as i32,
            data: to_bytes(&[IMAGE, IMAGE.map(|value| 1.0 - value)].concat()).into(),
            ..Default::default()
        })),
        options: Some(ActivationOptions {
            projections: projections.iter().map(ToString::to_string).collect(),
            pooling: pooling as i32,
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn put(client: &mut VentralClient<Channel>, name: &str, bytes: Vec<u8>) -> Result<Projection, Status> {
    let start = Part::Start(ProjectionStart {
        model: "hand".into(),
        version: String::new(),
        name: name.into(),
    });
    let parts: Vec<_> = bytes
        .chunks(100)
        .map(|bytes| Part::Data(bytes.to_vec().into()))
        .collect();
    let parts = std::iter::once(start)
        .chain(parts)
        .map(|part| PutProjectionRequest { part: Some(part) });
    let answer = client
        .put_projection(stream::iter(parts.collect::<Vec<_>>()))
        .await?;
    Ok(answer.into_inner().projection.unwrap())
}

async fn list(client: &mut VentralClient<Channel>) -> Vec<Projection> {
    let request = ListProjectionsRequest {
        model: "hand".into(),
        ..Default::default()
    };
    client
        .list_projections(request)
        .await
        .unwrap()
        .into_inner()
        .projections
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let folder = folder.join("projections");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.safetensors")), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_uploaded_and_stored_are_used_by_their_names() {
    let repository = tempfile::tempdir().unwrap();
    let folder = Bundle::new().write(repository.path(), "hand", 1);
    write(&folder, "stored", &file("layer1", FEATURES, true));
    let running = Running::start(repository.path()).await;
    let mut client = running.client().await;
    let description = |name: &str, layer: &str, features, stored| Projection {
        name: name.into(),
        layer: layer.into(),
        features,
        components: COMPONENTS as u64,
        stored,
    };
    let uploaded = put(&mut client, "uploaded", file("relu", FEATURES, false))
        .await
        .unwrap();
    assert_eq!(uploaded, description("uploaded", "relu", 32, false));
    put(&mut client, "pooled", file("relu", 2, true)).await.unwrap();
    let expected = [
        description("pooled", "relu", 2, false),
        description("stored", "layer1", 32, true),
        uploaded,
    ];
    assert_eq!(list(&mut client).await, expected);

    let images = [IMAGE, IMAGE.map(|value| 1.0 - value)];
    let request_both = request(
        &["layer1", "fc", "relu"],
        &["uploaded", "stored"],
        Pooling::Unspecified,
    );
    let found = client
        .get_activations(request_both)
        .await
        .unwrap()
        .into_inner()
        .activations;
    assert_eq!(found[0].shape, [2, COMPONENTS as u64]);
    assert_close(
        &to_values(&found[0].data),
        &images
            .map(|image| project(&bundle::layer1(&image), true))
            .concat(),
    );
    assert_eq!(found[1].shape, [2, 3]);
    assert_close(
        &to_values(&found[2].data),
        &images.map(|image| project(&bundle::relu(&image), false)).concat(),
    );

    let pooled = request(&["relu"], &["pooled"], Pooling::SpatialMax);
    let found = client
        .get_activations(pooled)
        .await
        .unwrap()
        .into_inner()
        .activations;
    let pool = |image: &[f32; 16]| -> Vec<f32> {
        bundle::relu(image)
            .chunks(16)
            .map(|channel| channel.iter().copied().fold(f32::MIN, f32::max))
            .collect()
    };
    assert_close(
        &to_values(&found[0].data),
        &images.map(|image| project(&pool(&image), true)).concat(),
    );

    // A file that is replaced is read anew.
    let replacement = folder.join("projections/replacement");
    std::fs::write(&replacement, file("layer1", FEATURES, false)).unwrap();
    std::fs::rename(&replacement, folder.join("projections/stored.safetensors")).unwrap();
    let again = request(&["layer1"], &["stored"], Pooling::Unspecified);
    let found = client
        .get_activations(again)
        .await
        .unwrap()
        .into_inner()
        .activations;
    assert_close(
        &to_values(&found[0].data),
        &images
            .map(|image| project(&bundle::layer1(&image), false))
            .concat(),
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_that_do_not_fit_are_refused() {
    let repository = tempfile::tempdir().unwrap();
    let folder = Bundle::new().write(repository.path(), "hand", 1);
    write(&folder, "stored", &file("layer1", FEATURES, true));
    write(&folder, "damaged", b"nothing");
    let limits = Limits {
        projection_bytes: 3000,
        ..Limits::default()
    };
    let running = Running::start_with(repository.path(), limits).await;
    let mut client = running.client().await;
    put(&mut client, "relu", file("relu", FEATURES, false))
        .await
        .unwrap();
    put(&mut client, "relu2", file("relu", FEATURES, true))
        .await
        .unwrap();
    for (layers, projections, pooling, code, expected) in [
        (
            vec!["relu"],
            vec!["none"],
            0,
            Code::NotFound,
            "has no projection `none`; it has: damaged, relu, relu2, stored",
        ),
        (
            vec!["relu"],
            vec!["../stored"],
            0,
            Code::NotFound,
            "has no projection",
        ),
        (
            vec!["relu"],
            vec!["stored"],
            0,
            Code::InvalidArgument,
            "is of layer `layer1`, which isn't asked for",
        ),
        (
            vec!["relu"],
            vec!["relu", "relu2"],
            0,
            Code::InvalidArgument,
            "both `relu` and `relu2`",
        ),
        (
            vec!["relu"],
            vec!["relu"],
            1,
            Code::InvalidArgument,
            "takes 32 values an image, layer `relu` has 2",
        ),
        (
            vec!["relu"],
            vec!["damaged"],
            0,
            Code::InvalidArgument,
            "not a safetensors file",
        ),
    ] {
        let pooling = Pooling::try_from(pooling).unwrap();
        let status = client
            .get_activations(request(&layers, &projections, pooling))
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }
    let names: Vec<_> = list(&mut client)
        .await
        .into_iter()
        .map(|projection| projection.name)
        .collect();
    assert_eq!(names, ["relu", "relu2", "stored"], "the damaged one is left out");

    for (name, bytes, code, expected) in [
        (
            "",
            file("relu", 32, false),
            Code::InvalidArgument,
            "a projection's name",
        ),
        (
            "a/b",
            file("relu", 32, false),
            Code::InvalidArgument,
            "a projection's name",
        ),
        (
            "stored",
            file("relu", 32, false),
            Code::InvalidArgument,
            "stored beside the model",
        ),
        (
            "new",
            file("layer9", 32, false),
            Code::NotFound,
            "no layer `layer9`",
        ),
        (
            "new",
            b"nothing".to_vec(),
            Code::InvalidArgument,
            "not a safetensors file",
        ),
        (
            "new",
            vec![0; 2500],
            Code::ResourceExhausted,
            "may take 3000 bytes",
        ),
    ] {
        let status = put(&mut client, name, bytes).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{status}");
    }

    // What was refused takes no room, and replacing gives room back.
    for _ in 0..10 {
        put(&mut client, "relu", file("relu", FEATURES, false))
            .await
            .unwrap();
    }
    let delete = |name: &str| DeleteProjectionRequest {
        model: "hand".into(),
        name: name.into(),
        ..Default::default()
    };
    client.delete_projection(delete("relu")).await.unwrap();
    let status = client.delete_projection(delete("relu")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let status = client.delete_projection(delete("stored")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projections_are_uploaded_over_http() {
    let repository = tempfile::tempdir().unwrap();
    Bundle::new().write(repository.path(), "hand", 1);
    let running = Running::start(repository.path()).await;
    let base = running.url("/v1/models/hand/versions/1/projections");
    let sent = http_client()
        .put(format!("{base}/pca"))
        .send(&file("layer1", FEATURES, true)[..]);
    let mut answer = sent.unwrap();
    assert_eq!(answer.status(), 201);
    let expected = r#"{"name":"pca","layer":"layer1","features":32,"components":5,"stored":false}"#;
    assert_eq!(answer.body_mut().read_to_string().unwrap(), expected);
    let mut listed = http_client().get(&base).call().unwrap();
    let list = listed.body_mut().read_to_string().unwrap();
    assert_eq!(list, format!(r#"{{"projections":[{expected}]}}"#));

    let mut client = running.client().await;
    let found = client
        .get_activations(request(&["layer1"], &["pca"], Pooling::Unspecified))
        .await;
    let found = found.unwrap().into_inner().activations;
    assert_close(
        &to_values(&found[0].data)[..COMPONENTS],
        &project(&bundle::layer1(&IMAGE), true),
    );

    for expected in [204, 404] {
        let deleted = http_client().delete(format!("{base}/pca")).call().unwrap();
        assert_eq!(deleted.status(), expected);
    }
    running.stop().await;
}
