//! gRPC: `ventral.v1`, one file a method, the Open Inference Protocol, health and reflection. Each translates messages and
//! leaves the work to what both protocols share.

mod bounds;
mod classify;
mod fit_projections;
mod front;
mod get_activations;
mod get_model;
mod groups;
mod health;
mod incoming;
mod list_models;
mod messages;
mod methods;
mod oip;
mod projections;
mod silence;
mod status;
mod stream_activations;
mod unread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::ventral::v1::ventral_server::{Ventral, VentralServer};
use proto::ventral::v1::{
    ClassifyRequest, ClassifyResponse, DeleteProjectionRequest, DeleteProjectionResponse,
    FitProjectionsRequest, GetActivationsRequest, GetActivationsResponse, GetModelRequest, GetModelResponse,
    ListModelsRequest, ListModelsResponse, ListProjectionsRequest, ListProjectionsResponse,
    PutProjectionRequest, PutProjectionResponse, StreamActivationsRequest,
};
use thiserror::Error;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::front::Front;
use crate::front::call::Call;
use crate::security::tls::Tls;
use crate::state::State;
use bounds::BoundsLayer;
use front::FrontLayer;

/// How often a silent client is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Of HTTP/2, in which messages come in pieces.
const FRAME_BYTES: u32 = 1 << 20;

/// The methods of `ventral.v1`.
struct Service {
    state: Arc<State>,
}

/// Why gRPC isn't served.
#[derive(Debug, Error)]
pub enum GrpcError {
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The descriptions of the services can't be read.
    #[error("reflection can't be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `stop` ends, then lets running requests finish.
///
/// # Errors
/// [`GrpcError`].
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    front: Arc<Front>,
    tls: Option<&Tls>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), GrpcError> {
    let bytes = state.limits.message_bytes;
    let open_inference = oip::service(Arc::clone(&state), Arc::clone(&front));
    let bounds = BoundsLayer {
        state: Arc::clone(&state),
    };
    let layer = FrontLayer::new(Arc::clone(&front), Arc::clone(&state));
    let service = VentralServer::new(Service { state })
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(bytes);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut builder = Server::builder();
    if let Some(tls) = tls {
        builder = builder.tls_config(tls.grpc())?;
    }
    let server = builder
        // A client that is gone without a word must not keep its place.
        .http2_keepalive_interval(Some(KEEPALIVE))
        // Stimuli come in large messages, and from far away.
        .max_frame_size(Some(FRAME_BYTES))
        .initial_stream_window_size(Some(4 * FRAME_BYTES))
        .initial_connection_window_size(Some(8 * FRAME_BYTES))
        .layer(layer)
        .layer(bounds)
        .add_service(service)
        .add_service(open_inference)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let incoming = incoming::connections(listener);
    let phases = front.readiness.watch();
    // Before anyone can ask: a new reporter says that all is well.
    health::tell(&reporter, front.readiness.phase()).await;
    let reporting = tokio::spawn(health::report(phases, reporter));
    let result = server.serve_with_incoming_shutdown(incoming, stop).await;
    reporting.abort();
    Ok(result?)
}

/// The line that is printed once the port answers.
pub fn listening_line(scheme: &str, address: SocketAddr) -> String {
    format!("grpc listening on {scheme}://{address}")
}

#[tonic::async_trait]
impl Ventral for Service {
    async fn get_activations(
        &self,
        request: Request<GetActivationsRequest>,
    ) -> Result<Response<GetActivationsResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model)?;
        Ok(get_activations::get_activations(&self.state, request).await?)
    }

    type StreamActivationsStream = stream_activations::Answers;

    async fn stream_activations(
        &self,
        request: Request<Streaming<StreamActivationsRequest>>,
    ) -> Result<Response<Self::StreamActivationsStream>, Status> {
        stream_activations::stream_activations(&self.state, request).await
    }

    async fn classify(
        &self,
        request: Request<ClassifyRequest>,
    ) -> Result<Response<ClassifyResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model)?;
        Ok(classify::classify(&self.state, request).await?)
    }

    async fn put_projection(
        &self,
        request: Request<Streaming<PutProjectionRequest>>,
    ) -> Result<Response<PutProjectionResponse>, Status> {
        Ok(Response::new(projections::put(&self.state, request).await?))
    }

    type FitProjectionsStream = fit_projections::Answers;

    async fn fit_projections(
        &self,
        request: Request<Streaming<FitProjectionsRequest>>,
    ) -> Result<Response<Self::FitProjectionsStream>, Status> {
        fit_projections::fit_projections(&self.state, request).await
    }

    async fn list_projections(
        &self,
        request: Request<ListProjectionsRequest>,
    ) -> Result<Response<ListProjectionsResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model)?;
        Ok(Response::new(
            projections::list(&self.state, request.into_inner()).await?,
        ))
    }

    async fn delete_projection(
        &self,
        request: Request<DeleteProjectionRequest>,
    ) -> Result<Response<DeleteProjectionResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model)?;
        Ok(Response::new(
            projections::delete(&self.state, request.into_inner()).await?,
        ))
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        let call = Call::of(request.extensions())?;
        Ok(Response::new(list_models::list_models(&self.state, call)?))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model)?;
        let response = get_model::get_model(&self.state, &request.into_inner()).await?;
        Ok(Response::new(response))
    }
}
