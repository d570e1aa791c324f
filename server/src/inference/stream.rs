//! Many stimuli, group by group, of which a bounded number is in work at a time.

use std::sync::Arc;
use std::time::Instant;

use model::image::ImageError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::plan::Plan;
use super::scheduler::Urgency;
use super::target::Target;
use super::{Activations, Inference, KIB, Options, Reservation, Timings, Work, input_bytes};
use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError};
use crate::stimuli::Stimuli;

/// Batches of groups of a single stimulus that are in work at a time.
const BATCHES_IN_WORK: usize = 4;

/// A stream whose model, layers and options are checked, and whose sessions are loaded.
pub struct ActivationStream {
    bundle: Arc<Bundle>,
    options: Options,
    plan: Arc<Plan>,
    target: Target,
    /// KiB that may still come into work.
    window: Arc<Semaphore>,
    window_size: u32,
    groups_in_work: usize,
    /// The window's memory, counted as long as the stream lasts.
    _reservation: Reservation,
}

/// The activations of one group.
#[derive(Debug)]
pub struct GroupAnswer {
    /// One entry for each layer that was asked for, without the stimuli in `unreadable`.
    pub activations: Vec<Activations>,
    /// Stimuli that can't be read, by their positions in the group, sorted.
    pub unreadable: Vec<(usize, ImageError)>,
    /// How long it took.
    pub timings: Timings,
    /// The group's part of the window, until this is dropped.
    pub place: OwnedSemaphorePermit,
}

impl Inference {
    /// Begins a stream.
    ///
    /// # Errors
    /// Any [`ServerError`] of layers and options, [`ServerError::Busy`] where there is no memory for another stream.
    pub async fn open(
        &self,
        bundle: &Arc<Bundle>,
        layers: &[String],
        options: Options,
    ) -> Result<ActivationStream, ServerError> {
        let plan = self.plan(bundle, layers, &options).await?;
        let per_stimulus = plan.bytes_per_image() + input_bytes(bundle);
        let groups_in_work = BATCHES_IN_WORK * self.maximum_batch;
        // A stream of small things needs little of what it may have.
        let window = (per_stimulus * groups_in_work as u128).min(self.limits.stream_bytes as u128);
        let window = u32::try_from(window.div_ceil(KIB)).unwrap_or(u32::MAX).max(1);
        Ok(ActivationStream {
            bundle: Arc::clone(bundle),
            target: self.target(bundle, &plan).await?,
            options,
            plan,
            window: Arc::new(Semaphore::new(window as usize)),
            window_size: window,
            groups_in_work,
            _reservation: self.reserve(u128::from(window) * KIB)?,
        })
    }
}

impl ActivationStream {
    /// What computes.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// How many values each layer has of a stimulus, in the order of the request.
    pub fn values(&self) -> Vec<usize> {
        let parts = self.plan.parts.iter();
        parts.map(|part| part.shape.iter().product()).collect()
    }

    /// Whether no group is in work, and no answer of one waits to be taken.
    pub fn is_idle(&self) -> bool {
        self.window.available_permits() == self.window_size as usize
    }

    /// Groups that are in work at a time at most.
    pub fn groups_in_work(&self) -> usize {
        self.groups_in_work
    }

    /// Waits until a group may come into work. One that is larger than the window waits until nothing else is in work.
    ///
    /// # Errors
    /// [`ServerError::Internal`] at the server's end.
    pub async fn admit(&self, stimuli: &Stimuli) -> Result<OwnedSemaphorePermit, ServerError> {
        let per_stimulus = self.plan.bytes_per_image() + input_bytes(&self.bundle);
        let bytes = per_stimulus * u128::from(stimuli.images()) + stimuli.bytes() as u128;
        let size = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let window = Arc::clone(&self.window);
        let place = window.acquire_many_owned(size.clamp(1, self.window_size)).await;
        Ok(place.map_err(InternalError::from)?)
    }

    /// Activations of a group that was admitted. `skip_unreadable`: images that can't be read are reported in the
    /// answer.
    ///
    /// # Errors
    /// Any [`ServerError`] of stimuli, limits and time, or an internal one.
    pub async fn answer(
        &self,
        inference: &Inference,
        stimuli: Stimuli,
        skip_unreadable: bool,
        place: OwnedSemaphorePermit,
    ) -> Result<GroupAnswer, ServerError> {
        let latest = Instant::now() + inference.limits.time;
        let deadline = self
            .options
            .deadline
            .map_or(latest, |deadline| deadline.min(latest));
        let manifest = &self.bundle.manifest;
        let preprocessing = self.options.preprocessing;
        let prepared = inference.preprocessor.prepare(stimuli, preprocessing, manifest)?;
        self.plan
            .check_size(prepared.images(), inference.limits.tensor_bytes)?;
        let work = Work {
            inference,
            plan: Arc::clone(&self.plan),
            target: self.target.clone(),
            prepared: Arc::new(prepared),
            urgency: Urgency {
                priority: self.options.priority,
                deadline,
                exclusive: self.options.exclusive,
            },
            skip_unreadable,
        };
        match tokio::time::timeout_at(deadline.into(), work.run()).await {
            Ok(done) => {
                let done = done?;
                Ok(GroupAnswer {
                    activations: done.activations,
                    unreadable: done.unreadable,
                    timings: done.timings,
                    place,
                })
            }
            Err(_) => Err(ServerError::DeadlineExceeded),
        }
    }
}
