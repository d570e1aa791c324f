//! `StreamActivations`: activations of many images, in their order.
//!
//! The answers are a stream that does nothing unless it is read: a client that reads slowly makes the server read slowly.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, TryStreamExt as _};
use proto::ventral::v1::stream_activations_request::Part;
use proto::ventral::v1::{
    StimulusGroup, StreamActivationsRequest, StreamActivationsResponse, StreamStart, Unreadable,
};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status, Streaming};

use super::groups::{Computed, Groups};
use super::{bounds, messages};
use crate::error::{ServerError, chain};
use crate::front::call::Call;
use crate::inference::{self, ActivationStream, GroupAnswer, Priority};
use crate::state::State;

/// The answers of a stream.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<StreamActivationsResponse, Status>> + Send>>;

/// Begins a stream: reads its first message.
pub(super) async fn stream_activations(
    state: &Arc<State>,
    request: Request<Streaming<StreamActivationsRequest>>,
) -> Result<Response<Answers>, Status> {
    // The whole stream's, unlike the time that the server gives to each message.
    let deadline = bounds::client_deadline(&request);
    let call = Arc::clone(Call::of(request.extensions())?);
    let mut incoming = request.into_inner();
    let first = incoming.message().await?.and_then(|message| message.part);
    let Some(Part::Start(start)) = first else {
        return Err(ServerError::InvalidArgument("a stream's first message must be `start`".into()).into());
    };
    call.use_model(&start.model)?;
    let skip_unreadable = start.skip_unreadable;
    let groups = Groups::new(state, open(state, start, deadline).await?, skip_unreadable);
    let answers = groups
        .compute(incoming, content, response)
        .map_ok(|(answer, _place)| answer);
    Ok(Response::new(Box::pin(answers)))
}

async fn open(
    state: &State,
    start: StreamStart,
    deadline: Option<Instant>,
) -> Result<ActivationStream, ServerError> {
    let bundle = &state.bundle(&start.model, &start.version).await?;
    let options = messages::options(start.options, Priority::Bulk, deadline)?;
    state.inference.open(bundle, &start.layers, options).await
}

fn content(message: StreamActivationsRequest) -> Result<StimulusGroup, &'static str> {
    match message.part {
        Some(Part::Stimuli(group)) => Ok(group),
        Some(Part::Start(_)) => Err("only a stream's first message may be `start`"),
        None => Err("the message is empty: expected `stimuli`"),
    }
}

/// The answer, and the group's place in the window, which is its own until the answer is on its way.
async fn response(
    groups: Arc<Groups>,
    computed: Computed,
) -> Result<(StreamActivationsResponse, OwnedSemaphorePermit), ServerError> {
    let Computed {
        number,
        ids,
        stimuli: _,
        answer,
    } = computed;
    let GroupAnswer {
        activations,
        unreadable,
        timings: _,
        place,
    } = answer;
    let activations = inference::in_one_piece(activations).await?;
    let is_unreadable = |index| {
        unreadable
            .binary_search_by_key(&index, |(index, _)| *index)
            .is_ok()
    };
    let read = ids.iter().enumerate().filter(|&(index, _)| !is_unreadable(index));
    let mut response = StreamActivationsResponse {
        ids: read.map(|(_, id)| id.clone()).collect(),
        activations: activations.into_iter().map(messages::tensor).collect(),
        unreadable: unreadable
            .iter()
            .map(|(index, error)| Unreadable {
                index: u32::try_from(*index).unwrap_or(u32::MAX),
                id: ids.get(*index).cloned().unwrap_or_default(),
                message: chain(error),
            })
            .collect(),
        ..Default::default()
    };
    if number == 0 {
        let bundle = groups.stream().bundle();
        response.model.clone_from(&bundle.model);
        response.version = bundle.version.to_string();
        response
            .checkpoint_digest
            .clone_from(&bundle.manifest.checkpoint_digest);
        response.weights = bundle.manifest.weights.name().into();
    }
    Ok((response, place))
}
