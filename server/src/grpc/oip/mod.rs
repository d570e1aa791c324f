//! The Open Inference Protocol over gRPC: `inference.GRPCInferenceService`.

mod infer;
mod models;
mod repository;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use proto::inference::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use proto::inference::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest,
    ModelStatisticsResponse, ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::{bounds, silence};
use crate::error::{InternalError, ServerError};
use crate::front::Front;
use crate::front::call::Call;
use crate::oip::metadata::{EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use crate::state::State;

/// Requests of one stream that are computed at a time; the next ones are read when these are answered.
const STREAMED_AT_A_TIME: usize = 4;

/// The methods of the protocol.
pub(super) struct Service {
    state: Arc<State>,
    front: Arc<Front>,
}

/// The service, with the limits of its messages.
pub(super) fn service(state: Arc<State>, front: Arc<Front>) -> GrpcInferenceServiceServer<Service> {
    let bytes = state.limits.message_bytes;
    GrpcInferenceServiceServer::new(Service { state, front })
        .max_decoding_message_size(bytes)
        .max_encoding_message_size(bytes)
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.front.readiness.check().is_ok();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().name)?;
        Ok(Response::new(models::ready(&self.state, &request.into_inner())))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: SERVER_NAME.into(),
            version: SERVER_VERSION.into(),
            extensions: EXTENSIONS.map(String::from).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().name)?;
        let response = models::metadata(&self.state, &request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model_name)?;
        let deadline = bounds::deadline(&request);
        let (response, reservation) = infer::infer(&self.state, request.into_inner(), deadline).await?;
        let mut response = Response::new(response);
        // Counted until the answer is sent.
        response.extensions_mut().insert(Arc::new(reservation));
        Ok(response)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let call = Arc::clone(Call::of(request.extensions())?);
        let deadline = bounds::client_deadline(&request);
        let state = Arc::clone(&self.state);
        let places = Arc::new(Semaphore::new(STREAMED_AT_A_TIME));
        let is_idle = {
            let places = Arc::clone(&places);
            move || places.available_permits() == STREAMED_AT_A_TIME
        };
        let requests = silence::bounded(request.into_inner(), self.state.limits.time, is_idle);
        let requests = requests.then(move |request| {
            let places = Arc::clone(&places);
            async move {
                let place = places.acquire_owned().await;
                let place = place.map_err(|error| ServerError::from(InternalError::from(error)))?;
                Ok::<_, Status>((request?, place))
            }
        });
        let mut is_first = true;
        // A request is a task of its own: what a slow client leaves unread must not keep hold of what others wait for.
        let answer = move |request: Result<(ModelInferRequest, OwnedSemaphorePermit), Status>| {
            let (state, call) = (Arc::clone(&state), Arc::clone(&call));
            let is_first = std::mem::take(&mut is_first);
            let answer = async move {
                let (request, place) = request?;
                // Not a message, as other errors are: who may not use a model is sent away.
                call.use_model(&request.model_name).map_err(Status::from)?;
                let admitted = if is_first { Ok(()) } else { call.another_request() };
                let (answer, reservation) = infer::infer_streamed(&state, admitted, request, deadline).await;
                Ok((answer, (reservation, place)))
            };
            let task = AbortOnDropHandle::new(tokio::spawn(answer.in_current_span()));
            async {
                task.await
                    .unwrap_or_else(|error| Err(ServerError::from(InternalError::from(error)).into()))
            }
        };
        let answers = requests.map(answer).buffered(STREAMED_AT_A_TIME);
        // The answer's memory is counted until it is on its way.
        let answers = answers.map_ok(|(answer, _held)| answer);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().name)?;
        let response = models::config(&self.state, &request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let call = Arc::clone(Call::of(request.extensions())?);
        let request = request.into_inner();
        if !request.name.is_empty() {
            call.use_model(&request.name)?;
        }
        let response = models::statistics(&self.state, &call, &request)?;
        Ok(Response::new(response))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let call = Arc::clone(Call::of(request.extensions())?);
        let response = repository::index(&self.state, &call, &request.into_inner())?;
        Ok(Response::new(response))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model_name)?;
        repository::load(&self.state, &request.into_inner()).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        Call::of(request.extensions())?.use_model(&request.get_ref().model_name)?;
        repository::unload(&self.state, &request.into_inner()).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}
