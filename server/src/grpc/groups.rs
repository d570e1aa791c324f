//! Groups of stimuli that come in over a stream and are computed in their order, of which a bounded number is in work at a
//! time.
//!
//! A group is taken in when there is room in the stream's window, and its room is free again when what was made of it is
//! dropped: whoever is slow with that makes the server read slowly, and holds no more memory than the window.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use proto::ventral::v1::StimulusGroup;
use proto::ventral::v1::get_activations_request::Stimuli as StimuliMessage;
use proto::ventral::v1::stimulus_group::Stimuli as GroupStimuli;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::{messages, silence};
use crate::error::{InternalError, ServerError};
use crate::inference::{ActivationStream, GroupAnswer};
use crate::state::State;
use crate::stimuli::Stimuli;

/// A group that has come in.
struct Group {
    /// Position in the stream.
    number: u64,
    ids: Vec<String>,
    stimuli: Stimuli,
    place: OwnedSemaphorePermit,
}

/// A group that was computed.
pub(super) struct Computed {
    /// Position in the stream.
    pub number: u64,
    /// The caller's names for its stimuli: one a stimulus, or none.
    pub ids: Vec<String>,
    /// Its stimuli, those included that can't be read.
    pub stimuli: u64,
    /// What came out.
    pub answer: GroupAnswer,
}

/// What the groups of a stream share.
pub(super) struct Groups {
    state: Arc<State>,
    stream: ActivationStream,
    skip_unreadable: bool,
}

impl Groups {
    /// `skip_unreadable`: images that can't be read are reported, and no error.
    pub(super) fn new(state: &Arc<State>, stream: ActivationStream, skip_unreadable: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Arc::clone(state),
            stream,
            skip_unreadable,
        })
    }

    /// What computes.
    pub(super) fn stream(&self) -> &ActivationStream {
        &self.stream
    }

    /// Computes all groups, and makes something of each, in their order. `content` takes a group out of a message, or says
    /// what is wrong with it. An error takes its turn like an answer.
    pub(super) fn compute<M, T, F>(
        self: &Arc<Self>,
        messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
        content: impl Fn(M) -> Result<StimulusGroup, &'static str> + Clone + Send + 'static,
        make: impl Fn(Arc<Self>, Computed) -> F + Clone + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static
    where
        M: Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, ServerError>> + Send,
    {
        let is_idle = {
            let shared = Arc::clone(self);
            move || shared.stream.is_idle()
        };
        let messages = silence::bounded(messages, self.state.limits.time, is_idle);
        let groups = messages.enumerate().then({
            let shared = Arc::clone(self);
            move |(number, message)| {
                let (shared, content) = (Arc::clone(&shared), content.clone());
                async move {
                    let number = number as u64;
                    let group = content(message?).map_err(|problem| wrong(number, problem))?;
                    shared.take_in(number, group).await
                }
            }
        });
        let (shared, span) = (Arc::clone(self), Span::current());
        // A group is a task of its own: what a slow client leaves unread must not keep hold of permits that others wait for.
        let made = groups.map(move |group| {
            let (shared, make) = (Arc::clone(&shared), make.clone());
            let answer = async move {
                let computed = shared.answer(group?).await?;
                Ok(make(shared, computed).await?)
            };
            let task = AbortOnDropHandle::new(tokio::spawn(answer.instrument(span.clone())));
            async {
                task.await
                    .unwrap_or_else(|error| Err(ServerError::from(InternalError::from(error)).into()))
            }
        });
        made.buffered(self.stream.groups_in_work())
    }

    /// Waits for room for a group.
    async fn take_in(&self, number: u64, group: StimulusGroup) -> Result<Group, Status> {
        let StimulusGroup { ids, stimuli } = group;
        let stimuli = messages::stimuli(stimuli.map(|stimuli| match stimuli {
            GroupStimuli::Images(images) => StimuliMessage::Images(images),
            GroupStimuli::Tensor(tensor) => StimuliMessage::Tensor(tensor),
        }));
        let stimuli = stimuli.map_err(|error| named(number, &ids, error))?;
        if !ids.is_empty() && ids.len() as u64 != stimuli.images() {
            let message = format!("it has {} ids for {} stimuli", ids.len(), stimuli.images());
            return Err(wrong(number, &message));
        }
        let place = self.stream.admit(&stimuli).await?;
        Ok(Group {
            number,
            ids,
            stimuli,
            place,
        })
    }

    /// The answer, and the group's place in the window, which is its own until the answer is dropped.
    async fn answer(&self, group: Group) -> Result<Computed, Status> {
        let Group {
            number,
            ids,
            stimuli,
            place,
        } = group;
        let count = stimuli.images();
        let answer = self
            .stream
            .answer(&self.state.inference, stimuli, self.skip_unreadable, place)
            .await;
        match answer {
            Ok(answer) => Ok(Computed {
                number,
                ids,
                stimuli: count,
                answer,
            }),
            Err(error) => Err(named(number, &ids, error)),
        }
    }
}

/// An error of a group, with the name of the stimulus that is to blame, or the group's position.
fn named(number: u64, ids: &[String], error: ServerError) -> Status {
    let id = match &error {
        ServerError::Image { index, .. } => ids.get(*index),
        _ => None,
    };
    let place = match id {
        Some(id) => format!("stimulus `{id}` in group {number} (counted from 0): "),
        None => format!("group {number} (counted from 0): "),
    };
    let status = Status::from(error);
    Status::with_metadata(status.code(), place + status.message(), status.metadata().clone())
}

fn wrong(number: u64, message: &str) -> Status {
    named(number, &[], ServerError::InvalidArgument(message.into()))
}
