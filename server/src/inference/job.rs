//! Parts of requests that are computed together: gathered into a batch, and handed back each its own.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::inference::queues::Entry;
use crate::inference::target::Target;
use crate::projection::product::Projector;
use crate::session::{Batch, LayerOutput, SessionError};
use crate::session_pool::Lease;
use crate::stimuli::Input;
use crate::telemetry::metrics::{Queued, Stage, metrics};

/// A part of a request that waits to be computed.
#[derive(Debug)]
pub(super) struct Job {
    /// What to compute.
    pub input: Input,
    /// It is counted as waiting as long as this is there.
    pub queued: Option<Queued>,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// Where the result goes.
    pub reply: oneshot::Sender<Result<Computed, JobError>>,
}

/// A job's result: some images of a batch.
#[derive(Clone, Debug)]
pub(super) struct Computed {
    /// One entry for each of the pool's layers, shared by all jobs of the batch.
    pub outputs: Arc<[LayerOutput]>,
    /// This job's images.
    pub images: Range<usize>,
    /// How long it waited.
    pub queue: Duration,
    /// How long the batch took.
    pub compute: Duration,
}

/// Why a job has no result.
#[derive(Debug)]
pub(super) enum JobError {
    /// It was too late for it.
    DeadlineExceeded,
    /// The network can't be computed.
    Failed(Arc<SessionError>),
}

/// Computes jobs in one batch and answers them. Those that no one waits for any more are left out. `gathered` is memory
/// that is kept from batch to batch.
pub(super) fn compute(
    target: &Target,
    projector: &Projector,
    mut lease: Lease,
    entries: Vec<Entry<Job>>,
    gathered: &mut Vec<f32>,
) {
    let start = Instant::now();
    let mut waiting = Vec::with_capacity(entries.len());
    for mut entry in entries {
        entry.job.queued = None;
        if entry.job.deadline <= start {
            // An error means that the caller has gone by itself.
            let _ = entry.job.reply.send(Err(JobError::DeadlineExceeded));
        } else if !entry.job.reply.is_closed() {
            waiting.push(entry);
        }
    }
    if waiting.is_empty() {
        return;
    }
    let mut run = |entries: &[Entry<Job>]| {
        gather(entries, gathered, |batch| {
            target.run(&mut lease, projector, batch)
        })
    };
    let model = &target.pool.bundle().model;
    for entry in &waiting {
        metrics().observe_stage(model, Stage::Queue, start.saturating_duration_since(entry.since));
    }
    let images = waiting.iter().map(|entry| entry.images).sum();
    let running = target.pool.pace().runs(images);
    let result = run(&waiting);
    let time = start.elapsed();
    target.pool.pace().ran(waiting.len(), images, time);
    metrics().observe_stage(model, Stage::Compute, time);
    metrics().observe_batch(model, images);
    if result.is_err() && waiting.len() > 1 {
        // Who was in the batch by chance must not fail for it: a smaller batch takes less memory.
        for entry in waiting {
            let start = Instant::now();
            let result = run(std::slice::from_ref(&entry));
            answer([entry], result, start, start.elapsed());
        }
    } else {
        answer(waiting, result, start, time);
    }
    drop(running);
}

/// Calls `run` with the inputs of jobs as one batch; a single job's is where it is.
fn gather<T>(entries: &[Entry<Job>], gathered: &mut Vec<f32>, run: impl FnOnce(Batch<'_>) -> T) -> T {
    if let [entry] = entries {
        return run(entry.job.input.batch());
    }
    gathered.clear();
    let mut shape = [0; 4];
    for entry in entries {
        let batch = entry.job.input.batch();
        shape = [
            shape[0] + batch.shape[0],
            batch.shape[1],
            batch.shape[2],
            batch.shape[3],
        ];
        gathered.extend_from_slice(batch.values);
    }
    run(Batch {
        shape,
        values: gathered,
    })
}

fn answer(
    entries: impl IntoIterator<Item = Entry<Job>>,
    result: Result<Vec<LayerOutput>, SessionError>,
    start: Instant,
    compute: Duration,
) {
    let result: Result<Arc<[_]>, _> = result.map(Arc::from).map_err(Arc::new);
    let mut first = 0;
    for entry in entries {
        let images = first..first + entry.images;
        first = images.end;
        let computed = match &result {
            Ok(outputs) => Ok(Computed {
                outputs: Arc::clone(outputs),
                images,
                queue: start.saturating_duration_since(entry.since),
                compute,
            }),
            Err(error) => Err(JobError::Failed(Arc::clone(error))),
        };
        // An error means that the caller has gone meanwhile.
        let _ = entry.job.reply.send(computed);
    }
}
