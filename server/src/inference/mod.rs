//! Stimuli and layers in, activations out: the one place that computes, whatever protocol asks.
//!
//! A request is checked against bundle and limits (`plan`), its stimuli are decoded and preprocessed, and computed in
//! batches that it shares with others (`work`, `queues`, `scheduler`, `job`, `target`); what comes out is reduced to what
//! it asked for (`reduce`). A large request is split into parts, of which a few are in work at a time. Whoever drops the
//! future of a request takes back what still waits. `stream` does the same for many stimuli, group by group.

mod job;
mod options;
mod plan;
mod queues;
mod reduce;
mod scheduler;
mod stream;
mod target;
mod timings;
mod work;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use options::{Compression, ElementType, Options, Pooling, PreprocessingChoice, Priority};
pub use queues::Depth;
pub use stream::{ActivationStream, GroupAnswer};
pub use timings::Timings;

use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError};
use crate::limits::Limits;
use crate::onnx_runtime::OnnxRuntime;
use crate::projection::product::Projector;
use crate::projection::store::ProjectionStore;
use crate::provider::Provider;
use crate::scheduling::Scheduling;
use crate::session_cache::SessionCache;
use crate::stimuli::{Preprocessor, Stimuli};
use plan::Plan;
use scheduler::{Scheduler, Urgency};
use target::Target;
use work::Work;

/// Bytes that are copied without asking another thread.
const SMALL_COPY: usize = 256 << 10;

/// What memory is counted in.
const KIB: u128 = 1 << 10;

/// Activations of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activations {
    /// The layer's name.
    pub layer: String,
    /// `[N, C, H, W]`, for `fc` `[N, classes]`; pooled `[N, C]`, of some units `[N, units]`.
    pub shape: Vec<usize>,
    /// Type of the values.
    pub data_type: ElementType,
    /// How `chunks` are packed.
    pub compression: Compression,
    /// Little-endian values, the last dimension fastest: the pieces in their order.
    pub chunks: Vec<Bytes>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// One entry for each layer that was asked for, in the order of the request.
    pub activations: Vec<Activations>,
    /// How long it took.
    pub timings: Timings,
    /// The memory that the activations take, which is counted until this is dropped.
    pub reservation: Reservation,
}

/// Memory that is counted for a request until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    /// Bytes that all requests may take.
    limit: usize,
}

impl Reservation {
    /// Counts more.
    ///
    /// # Errors
    /// [`ServerError::TensorTooLarge`] where it is more than all requests may take, [`ServerError::Busy`] where others take
    /// too much of it now.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ServerError> {
        let found = self.permit.num_permits() as u128 * KIB + bytes as u128;
        let memory = Arc::clone(self.permit.semaphore());
        self.permit.merge(take(memory, bytes as u128, found, self.limit)?);
        Ok(())
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: u128) {
        let kept = usize::try_from(bytes.div_ceil(KIB)).unwrap_or(usize::MAX);
        drop(self.permit.split(self.permit.num_permits().saturating_sub(kept)));
    }
}

/// How much waits for one network at one depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// The deepest layer.
    pub layer: String,
    /// Images that wait.
    pub depth: Depth,
}

/// Computes activations.
pub struct Inference {
    sessions: SessionCache,
    preprocessor: Preprocessor,
    scheduler: Scheduler,
    projections: Arc<ProjectionStore>,
    /// Permits for requests.
    requests: Arc<Semaphore>,
    /// Permits for KiB.
    memory: Arc<Semaphore>,
    /// Where reducing blocks.
    handle: Handle,
    limits: Limits,
    maximum_batch: usize,
    maximum_wait: Duration,
    /// Parts of a request that are in work at a time: one is decoded while the others are computed.
    parts_in_work: usize,
}

impl Inference {
    /// Decodes on `handle`'s blocking threads; `parallelism` is the number of cores that may be used.
    pub fn new(
        onnx_runtime: OnnxRuntime,
        handle: Handle,
        parallelism: usize,
        limits: Limits,
        scheduling: Scheduling,
    ) -> Self {
        let maximum_batch = scheduling.maximum_batch.get();
        let projector = Projector::new(onnx_runtime.clone());
        let sessions = SessionCache::new(
            onnx_runtime,
            handle.clone(),
            scheduling.instances,
            limits.queue_length,
            scheduling.kept_sessions,
        );
        let runs = scheduling.runs(parallelism);
        Self {
            sessions,
            preprocessor: Preprocessor::new(handle.clone(), parallelism, limits),
            scheduler: Scheduler::new(runs, maximum_batch, scheduling.maximum_delay, projector),
            projections: Arc::new(ProjectionStore::new(limits.projection_bytes)),
            requests: permits(limits.concurrent_requests),
            memory: permits(limits.memory_bytes.div_ceil(KIB as usize)),
            handle,
            limits,
            maximum_batch,
            maximum_wait: scheduling.maximum_wait,
            parts_in_work: scheduling.instances.get().min(runs) + 1,
        }
    }

    /// What computes.
    pub fn provider(&self) -> &Provider {
        self.sessions.onnx_runtime().provider()
    }

    /// Loads the sessions that compute a bundle's last layer: a bundle that can't be loaded is found out at start, and
    /// the first classification needn't wait.
    ///
    /// # Errors
    /// [`InternalError`] where ONNX Runtime refuses the graph.
    pub async fn prepare(&self, bundle: &Arc<Bundle>) -> Result<(), InternalError> {
        let last = bundle.manifest.layers.len().saturating_sub(1);
        self.sessions.get(bundle, &[last]).await?;
        Ok(())
    }

    /// Does something with the projections of a bundle, which may block.
    ///
    /// # Errors
    /// [`ServerError::Internal`] where it panics.
    pub async fn with_projections<T: Send + 'static>(
        &self,
        bundle: &Arc<Bundle>,
        work: impl FnOnce(&Arc<ProjectionStore>, &Bundle) -> T + Send + 'static,
    ) -> Result<T, ServerError> {
        let (store, bundle) = (Arc::clone(&self.projections), Arc::clone(bundle));
        let done = self.handle.spawn_blocking(move || work(&store, &bundle)).await;
        Ok(done.map_err(InternalError::from)?)
    }

    /// Lets go of everything that was loaded for a bundle, by its id, that is no longer served; requests that still use it
    /// finish.
    pub fn release(&self, bundle: u64) {
        self.sessions.release(bundle);
        self.projections.release(bundle);
    }

    /// A place for a request, which is taken until it is dropped. Both protocols ask for it before they read a request.
    ///
    /// # Errors
    /// [`ServerError::Busy`] where all places are taken.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ServerError> {
        let place = Arc::clone(&self.requests).try_acquire_owned();
        place.map_err(|_| ServerError::Busy {
            what: format!(
                "it works on {} requests, the most that it may",
                self.limits.concurrent_requests
            ),
            retry_after: Duration::from_secs(1),
        })
    }

    /// How much waits.
    pub fn queues(&self) -> Vec<QueueDepth> {
        let depths = self.scheduler.depths().into_iter();
        let named = depths.map(|(target, depth)| {
            let pool = target.pool;
            let bundle = pool.bundle();
            let layer = pool
                .layers()
                .last()
                .and_then(|&layer| bundle.manifest.layers.get(layer));
            QueueDepth {
                model: bundle.model.clone(),
                version: bundle.version,
                layer: layer.map(|layer| layer.name.clone()).unwrap_or_default(),
                depth,
            }
        });
        named.collect()
    }

    /// Activations of `layers`, one entry for each, in their order. The network is computed no deeper than the deepest
    /// of them. Dropping the future takes back what still waits.
    ///
    /// # Errors
    /// Any [`ServerError`] of layers, stimuli, options, limits and time, or an internal one.
    pub async fn infer(
        &self,
        bundle: &Arc<Bundle>,
        stimuli: Stimuli,
        layers: &[String],
        options: &Options,
    ) -> Result<Answer, ServerError> {
        let latest = Instant::now() + self.limits.time;
        let deadline = options.deadline.map_or(latest, |deadline| deadline.min(latest));
        let work = self.infer_until(bundle, stimuli, layers, options, deadline);
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(result) => result,
            Err(_) => Err(ServerError::DeadlineExceeded),
        }
    }

    async fn infer_until(
        &self,
        bundle: &Arc<Bundle>,
        stimuli: Stimuli,
        layers: &[String],
        options: &Options,
        deadline: Instant,
    ) -> Result<Answer, ServerError> {
        let plan = self.plan(bundle, layers, options).await?;
        let stimulus_bytes = stimuli.bytes() as u128;
        let prepared = self
            .preprocessor
            .prepare(stimuli, options.preprocessing, &bundle.manifest)?;
        let images = prepared.images();
        plan.check_size(images, self.limits.tensor_bytes)?;
        let mut reservation = self.reserve(stimulus_bytes + self.memory_of(bundle, &plan, images))?;
        let answer_bytes = plan.bytes_per_image() * images as u128;
        let target = self.target(bundle, &plan).await?;
        let place = target.pool.admit()?;
        if self.scheduler.expected_wait(&target, options.priority) > self.maximum_wait {
            let what = format!("a request waits {} ms for", self.maximum_wait.as_millis());
            return Err(target.pool.busy(&what));
        }
        let work = Work {
            inference: self,
            plan,
            target,
            prepared: Arc::new(prepared),
            urgency: Urgency {
                priority: options.priority,
                deadline,
                exclusive: options.exclusive,
            },
            skip_unreadable: false,
        };
        let done = work.run().await?;
        drop(place);
        drop(work);
        // The stimuli and what was made of them are gone.
        reservation.shrink_to(answer_bytes);
        Ok(Answer {
            activations: done.activations,
            timings: done.timings,
            reservation,
        })
    }

    /// Computes layers of a bundle that is about to be served. It isn't admitted as requests are: with all places taken, a
    /// bundle must still become ready.
    ///
    /// # Errors
    /// Those of [`Self::infer`], except [`ServerError::Busy`].
    pub async fn warm_up(
        &self,
        bundle: &Arc<Bundle>,
        stimuli: Stimuli,
        layers: &[String],
    ) -> Result<(), ServerError> {
        let options = Options::default();
        let plan = self.plan(bundle, layers, &options).await?;
        let prepared = self
            .preprocessor
            .prepare(stimuli, options.preprocessing, &bundle.manifest)?;
        let deadline = Instant::now() + self.limits.time;
        let work = Work {
            inference: self,
            target: self.target(bundle, &plan).await?,
            plan,
            prepared: Arc::new(prepared),
            urgency: Urgency {
                priority: options.priority,
                deadline,
                // It doesn't wait for company.
                exclusive: true,
            },
            skip_unreadable: false,
        };
        match tokio::time::timeout_at(deadline.into(), work.run()).await {
            Ok(done) => done.map(|_| ()),
            Err(_) => Err(ServerError::DeadlineExceeded),
        }
    }

    /// Checks what a request asks of a bundle.
    async fn plan(
        &self,
        bundle: &Arc<Bundle>,
        layers: &[String],
        options: &Options,
    ) -> Result<Arc<Plan>, ServerError> {
        let mut projections = Vec::new();
        if !options.projections.is_empty() {
            let names = options.projections.clone();
            let find = move |store: &Arc<ProjectionStore>, bundle: &Bundle| {
                names
                    .iter()
                    .map(|name| store.get(bundle, name))
                    .collect::<Result<_, _>>()
            };
            projections = self.with_projections(bundle, find).await??;
        }
        Ok(Arc::new(Plan::new(bundle, layers, options, &projections)?))
    }

    /// What a plan is computed to, with its sessions loaded.
    async fn target(&self, bundle: &Arc<Bundle>, plan: &Plan) -> Result<Target, ServerError> {
        Ok(Target {
            pool: self.sessions.get(bundle, &plan.layers).await?,
            projected: Arc::clone(&plan.projected),
        })
    }

    /// One zstd frame of all chunks.
    ///
    /// # Errors
    /// [`ServerError::Internal`].
    pub async fn pack(&self, chunks: Vec<Bytes>) -> Result<Bytes, ServerError> {
        let packed = self.handle.spawn_blocking(move || reduce::compress(chunks)).await;
        Ok(packed.map_err(InternalError::from)??)
    }

    /// One zstd frame of text that is made piece by piece, and is never in one place.
    ///
    /// # Errors
    /// [`ServerError::Internal`].
    pub async fn pack_text(
        &self,
        pieces: impl Iterator<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, ServerError> {
        let packed = self
            .handle
            .spawn_blocking(move || reduce::compress_pieces(pieces, None))
            .await;
        Ok(packed.map_err(InternalError::from)??)
    }

    /// Counts memory for a request.
    ///
    /// # Errors
    /// [`ServerError::TensorTooLarge`] where it is more than all requests may take, [`ServerError::Busy`] where others take
    /// too much of it now.
    pub fn reserve(&self, bytes: u128) -> Result<Reservation, ServerError> {
        let limit = self.limits.memory_bytes;
        let permit = take(Arc::clone(&self.memory), bytes, bytes, limit)?;
        Ok(Reservation { permit, limit })
    }

    /// Bytes that a request takes besides its stimuli: its answer, and the inputs of the parts that are in work.
    fn memory_of(&self, bundle: &Bundle, plan: &Plan, images: usize) -> u128 {
        let in_work = images.min(self.parts_in_work * self.maximum_batch) as u128;
        plan.bytes_per_image() * images as u128 + input_bytes(bundle) * in_work
    }
}

/// Takes memory for a request that has `found` bytes with it, if that much is left of `limit`.
fn take(
    memory: Arc<Semaphore>,
    bytes: u128,
    found: u128,
    limit: usize,
) -> Result<OwnedSemaphorePermit, ServerError> {
    if found > limit as u128 {
        let what = "the request's inputs and activations (`limits.memory_bytes`)";
        return Err(ServerError::TensorTooLarge { what, found, limit });
    }
    let permits = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
    let permit = memory.try_acquire_many_owned(permits);
    permit.map_err(|_| ServerError::Busy {
        what: format!("inputs and activations of all requests would take more than {limit} bytes"),
        retry_after: Duration::from_secs(1),
    })
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

/// Bytes of one image as the network's input.
fn input_bytes(bundle: &Bundle) -> u128 {
    let input = bundle.manifest.architecture.input;
    (input.channels * input.height * input.width * size_of::<f32>()) as u128
}

/// Activations of which each layer's values are in one piece. Putting together much of them is work for threads that serve no
/// connections.
///
/// # Errors
/// [`InternalError`] at the server's end.
pub async fn in_one_piece(mut activations: Vec<Activations>) -> Result<Vec<Activations>, InternalError> {
    let pieces = activations.iter().filter(|layer| layer.chunks.len() > 1);
    let bytes: usize = pieces.flat_map(|layer| &layer.chunks).map(Bytes::len).sum();
    if bytes <= SMALL_COPY {
        return Ok(activations);
    }
    let join = move || {
        for layer in &mut activations {
            let chunks = std::mem::take(&mut layer.chunks);
            layer.chunks = vec![joined(chunks)];
        }
        activations
    };
    Ok(Handle::current().spawn_blocking(join).await?)
}

fn joined(mut chunks: Vec<Bytes>) -> Bytes {
    if chunks.len() == 1 {
        return chunks.remove(0);
    }
    let mut bytes = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        bytes.extend_from_slice(&chunk);
    }
    bytes.freeze()
}

impl Activations {
    /// The values in one piece; see [`in_one_piece`] for many of them.
    pub fn into_bytes(self) -> Bytes {
        joined(self.chunks)
    }
}
