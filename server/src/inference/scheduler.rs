//! Computes what waits, batch by batch, on threads of its own.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::{InternalError, ServerError};
use crate::inference::job::{Computed, Job, JobError, compute};
use crate::inference::options::Priority;
use crate::inference::queues::{Depth, Entry, Next, Queues};
use crate::inference::target::Target;
use crate::projection::product::Projector;
use crate::session_pool::Lease;
use crate::stimuli::Input;
use crate::telemetry::metrics::metrics;

/// How long a computation that no one waits for any more may delay the end.
const LAST_COMPUTATION: Duration = Duration::from_secs(5);

/// Computes what waits. When it is dropped, what waits is forgotten.
pub(super) struct Scheduler {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something waits that an idle session could compute, or the end has come. What waits for a session is computed by the
    /// thread that has it, when it is done: no other one is woken for it.
    changed: Condvar,
    /// A thread has ended.
    ended: Condvar,
    projector: Projector,
}

struct State {
    queues: Queues<Target, Job>,
    next_id: u64,
    stopping: bool,
    threads: usize,
}

/// When something is computed, and with whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgency {
    pub priority: Priority,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// Whether it is never in a batch with anything else.
    pub exclusive: bool,
}

/// Takes a job away when its caller no longer waits for it.
struct Cancellation<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Scheduler {
    /// Starts `runs` threads, each of which computes a batch at a time.
    pub fn new(runs: usize, maximum_batch: usize, maximum_delay: Duration, projector: Projector) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queues: Queues::new(maximum_batch, maximum_delay),
                next_id: 0,
                stopping: false,
                threads: runs,
            }),
            changed: Condvar::new(),
            ended: Condvar::new(),
            projector,
        });
        for _ in 0..runs {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work());
        }
        Self { shared }
    }

    /// Computes an input of at most as many images as a batch may have. Whoever stops waiting takes it away.
    ///
    /// # Errors
    /// [`ServerError::DeadlineExceeded`] where it still waited at its deadline, [`ServerError::Internal`] where the
    /// network can't be computed.
    pub async fn compute(
        &self,
        target: &Target,
        urgency: Urgency,
        input: Input,
    ) -> Result<Computed, ServerError> {
        let (reply, answer) = oneshot::channel();
        let images = input.images();
        let since = Instant::now();
        let job = Job {
            input,
            queued: Some(metrics().queued(&target.pool.bundle().model, images)),
            deadline: urgency.deadline,
            reply,
        };
        let (id, has_idle) = {
            let mut state = self.shared.lock();
            let id = state.next_id;
            state.next_id += 1;
            let entry = Entry {
                id,
                images,
                exclusive: urgency.exclusive,
                since,
                job,
            };
            state.queues.push(target, urgency.priority, entry);
            (id, target.pool.has_idle())
        };
        if has_idle {
            self.shared.changed.notify_one();
        }
        let cancellation = Cancellation {
            shared: &self.shared,
            id,
        };
        let result = answer.await;
        std::mem::forget(cancellation);
        match result {
            Ok(Ok(computed)) => Ok(computed),
            Ok(Err(JobError::DeadlineExceeded)) => Err(ServerError::DeadlineExceeded),
            Ok(Err(JobError::Failed(error))) => Err(InternalError::Run(error).into()),
            Err(_) => Err(InternalError::Abandoned.into()),
        }
    }

    /// How long something that comes now will have to wait for a target, as far as that can be told: as long as computing
    /// takes what is interactive and ahead of it, and no less than the oldest of its own priority has waited already.
    pub fn expected_wait(&self, target: &Target, priority: Priority) -> Duration {
        let waiting = self.shared.lock().queues.waiting(target, priority);
        let oldest = waiting.map_or(Duration::ZERO, |(since, _)| since.elapsed());
        match priority {
            Priority::Interactive => {
                let images = waiting.map_or(0, |(_, images)| images);
                oldest.max(target.pool.wait_behind(images))
            }
            // Bulk work waits for others by choice.
            Priority::Bulk => oldest,
        }
    }

    /// How much waits for every target for which something does.
    pub fn depths(&self) -> Vec<(Target, Depth)> {
        self.shared.lock().queues.depths()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        self.shared.changed.notify_all();
        // The process must not end below a computation: the library's own end would pull its memory away.
        let waited = self
            .shared
            .ended
            .wait_timeout_while(state, LAST_COMPUTATION, |state| state.threads > 0);
        drop(waited);
    }
}

impl Drop for Cancellation<'_> {
    fn drop(&mut self) {
        let removed = self.shared.lock().queues.remove(self.id);
        // Its memory is given back outside of the lock.
        drop(removed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the end.
    fn work(&self) {
        let mut gathered = Vec::new();
        while let Some((target, lease, entries)) = self.next() {
            // A panic costs the requests of its batch, not the thread.
            let run = AssertUnwindSafe(|| compute(&target, &self.projector, lease, entries, &mut gathered));
            if std::panic::catch_unwind(run).is_err() {
                tracing::error!("a computation panicked");
            }
        }
        self.lock().threads -= 1;
        self.ended.notify_all();
    }

    /// Waits for something to compute; nothing at the end.
    fn next(&self) -> Option<(Target, Lease, Vec<Entry<Job>>)> {
        let mut state = self.lock();
        let is_idle = |target: &Target| target.pool.has_idle();
        loop {
            if state.stopping {
                return None;
            }
            let now = Instant::now();
            state = match state.queues.next(now, is_idle) {
                Next::Batch(target, entries) => match target.pool.lease() {
                    Some(lease) => {
                        // Several sessions may have become idle while this thread computed: others take what it leaves.
                        if state.queues.has_work(is_idle) {
                            self.changed.notify_one();
                        }
                        return Some((target, lease, entries));
                    }
                    // Sessions are leased under this lock only, so that one that was idle still is.
                    None => continue,
                },
                Next::At(time) => {
                    let wait = time.saturating_duration_since(now);
                    let waited = self.changed.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                Next::Nothing => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
