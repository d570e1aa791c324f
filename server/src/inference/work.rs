//! What computes the images of a request: a few parts at a time, each decoded, computed in a batch and reduced.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use model::image::ImageError;

use super::options::Compression;
use super::plan::{self, Plan};
use super::reduce;
use super::scheduler::Urgency;
use super::target::Target;
use super::timings::Timings;
use super::{Activations, Inference};
use crate::error::{InternalError, ServerError};
use crate::session::LayerOutput;
use crate::stimuli::{Decoded, Prepared};
use crate::telemetry::metrics::{Stage, metrics};

/// Bytes of activations that are reduced without asking another thread: that would take longer.
const SMALL_ANSWER: u128 = 64 << 10;

/// Stimuli that are computed to a target.
pub(super) struct Work<'a> {
    pub(super) inference: &'a Inference,
    pub(super) plan: Arc<Plan>,
    pub(super) target: Target,
    pub(super) prepared: Arc<Prepared>,
    pub(super) urgency: Urgency,
    /// Whether images that can't be read are left out, or an error.
    pub(super) skip_unreadable: bool,
}

/// What has become of some images.
#[derive(Default)]
pub(super) struct Done<T> {
    pub(super) activations: Vec<T>,
    pub(super) timings: Timings,
    pub(super) unreadable: Vec<(usize, ImageError)>,
}

impl Work<'_> {
    /// Computes all of the images, a few parts at a time.
    pub(super) async fn run(&self) -> Result<Done<Activations>, ServerError> {
        let plan = &self.plan;
        let mut timings = Timings::default();
        let mut unreadable = Vec::new();
        let mut chunks: Vec<Vec<Bytes>> = plan.parts.iter().map(|_| Vec::new()).collect();
        let images = self.prepared.images();
        let parts = plan::split(images, self.inference.maximum_batch).map(|images| self.part(images));
        let mut parts = futures_util::stream::iter(parts).buffered(self.inference.parts_in_work);
        while let Some(part) = parts.try_next().await? {
            timings.add(&part.timings);
            unreadable.extend(part.unreadable);
            std::iter::zip(&mut chunks, part.activations).for_each(|(chunks, bytes)| chunks.push(bytes));
        }
        drop(parts);
        if plan.compression == Compression::Zstd {
            let start = Instant::now();
            for chunks in &mut chunks {
                *chunks = vec![self.inference.pack(std::mem::take(chunks)).await?];
            }
            timings.serialise += start.elapsed();
        }
        let model = &self.target.pool.bundle().model;
        metrics().observe_stage(model, Stage::Reduce, timings.serialise);
        Ok(Done {
            activations: plan.answer(images - unreadable.len(), chunks),
            timings,
            unreadable,
        })
    }

    /// Decodes, computes and reduces some of the images: bytes for each part of the plan.
    async fn part(&self, images: Range<usize>) -> Result<Done<Bytes>, ServerError> {
        let start = Instant::now();
        let Decoded { input, unreadable } =
            self.inference.preprocessor.decode(&self.prepared, images).await?;
        let mut unreadable = unreadable;
        if !self.skip_unreadable && !unreadable.is_empty() {
            let (index, source) = unreadable.swap_remove(0);
            return Err(ServerError::Image { index, source });
        }
        let mut timings = Timings {
            decode: start.elapsed(),
            ..Timings::default()
        };
        metrics().observe_stage(&self.target.pool.bundle().model, Stage::Decode, timings.decode);
        let count = input.images();
        if count == 0 {
            return Ok(Done {
                activations: self.plan.parts.iter().map(|_| Bytes::new()).collect(),
                timings,
                unreadable,
            });
        }
        let scheduler = &self.inference.scheduler;
        let computed = scheduler.compute(&self.target, self.urgency, input).await?;
        timings.queue = computed.queue;
        timings.compute = computed.compute;
        timings.batches = 1;
        timings.batch_images = computed.outputs.first().map_or(0, LayerOutput::images);
        let start = Instant::now();
        let (plan, outputs, range) = (Arc::clone(&self.plan), computed.outputs, computed.images);
        let is_free = |part| reduce::is_free(part, plan.data_type, &outputs, &range);
        let is_small =
            plan.bytes_per_image() * count as u128 <= SMALL_ANSWER || plan.parts.iter().all(is_free);
        let reduce = move || {
            let parts = plan.parts.iter();
            parts
                .map(|part| reduce::bytes(part, plan.data_type, &outputs, range.clone()))
                .collect()
        };
        let activations = if is_small {
            reduce()
        } else {
            let reduced = self.inference.handle.spawn_blocking(reduce).await;
            reduced.map_err(InternalError::from)?
        };
        timings.serialise = start.elapsed();
        Ok(Done {
            activations,
            timings,
            unreadable,
        })
    }
}

impl Plan {
    fn answer(&self, images: usize, chunks: Vec<Vec<Bytes>>) -> Vec<Activations> {
        std::iter::zip(&self.parts, chunks)
            .map(|(part, chunks)| Activations {
                layer: part.layer.clone(),
                shape: [&[images], part.shape.as_slice()].concat(),
                data_type: self.data_type,
                compression: self.compression,
                chunks,
            })
            .collect()
    }
}
