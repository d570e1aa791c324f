//! The model repository while it is served.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod changes;
mod control;
mod memory;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;

use proto::ventral::v1::get_activations_request::Stimuli;
use proto::ventral::v1::ventral_client::VentralClient;
use proto::ventral::v1::{DataType, GetActivationsRequest, GetModelRequest, GetModelResponse, Tensor};
use server::inference::Inference;
use server::onnx_runtime::OnnxRuntime;
use server::provider::ProviderChoice;
use server::repository::ModelRepository;
use server::{Limits, RepositoryOptions, Scheduling};
use support::bundle::{self, Bundle};
use support::{to_bytes, to_values};
use tokio::runtime::Handle;
use tonic::Status;
use tonic::transport::Channel;

const IMAGE: [f32; 16] = [
    0.0, 1.0, -1.0, 0.5, 2.0, -0.25, 0.125, 3.0, -3.0, 0.75, 1.5, -1.5, 0.0, 4.0, -0.5, 1.0,
];

/// A bundle whose `relu` is `factor` times that of the usual one, and whose digest is the factor.
fn scaled(factor: u32) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.manifest.checkpoint_digest = factor.to_string();
    let scale = bundle::SCALE.map(|scale| scale * factor as f32);
    bundle.data[..8].copy_from_slice(&to_bytes(&scale));
    bundle
}

/// The usual bundle's `relu` of [`IMAGE`], times a factor.
fn relu(factor: u32) -> Vec<f32> {
    let values = bundle::relu(&IMAGE).into_iter();
    values.map(|value| value * factor as f32).collect()
}

/// A repository's folder inside a temporary one.
fn repository() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("models");
    std::fs::create_dir(&repository).unwrap();
    (folder, repository)
}

/// The digest of the bundle that answered, and its answer.
async fn ask(
    client: &mut VentralClient<Channel>,
    model: &str,
    version: &str,
    layer: &str,
) -> Result<(String, Vec<f32>), Status> {
    let request = GetActivationsRequest {
        model: model.into(),
        version: version.into(),
        layers: vec![layer.into()],
        stimuli: Some(Stimuli::Tensor(Tensor {
            name: String::new(),
            shape: vec![1, 1, 4, 4],
            data_type: DataType::Float32 as i32,
            data: to_bytes(&IMAGE).into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let response = client.get_activations(request).await?.into_inner();
    Ok((
        response.checkpoint_digest,
        to_values(&response.activations[0].data),
    ))
}

async fn describe(client: &mut VentralClient<Channel>, model: &str) -> Result<GetModelResponse, Status> {
    let request = GetModelRequest {
        model: model.into(),
        version: String::new(),
    };
    Ok(client.get_model(request).await?.into_inner())
}

/// What computes, without a server around it.
fn inference() -> Arc<Inference> {
    let runtime = OnnxRuntime::start(Some(2), ProviderChoice::Cpu).unwrap();
    let (limits, scheduling) = (Limits::default(), Scheduling::default());
    Arc::new(Inference::new(runtime, Handle::current(), 2, limits, scheduling))
}

/// A repository without a server around it.
async fn alone(path: &Path) -> Arc<ModelRepository> {
    let repository = ModelRepository::new(path.into(), RepositoryOptions::default(), inference());
    repository.start().await.unwrap();
    Arc::new(repository)
}
