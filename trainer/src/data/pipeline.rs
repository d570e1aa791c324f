//! Jobs on several threads whose results come in the order of the jobs, a bounded number of groups ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Results of jobs, in their order. Dropping it ends the threads.
pub(super) struct Pipeline<J, R> {
    shared: Arc<Shared<J, R>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<J, R> {
    queue: Mutex<Queue<J, R>>,
    /// A result is there, or room for more, or the end.
    changed: Condvar,
    /// Groups that are worked on at a time.
    groups: usize,
}

struct Queue<J, R> {
    /// Jobs that nobody has begun, with their groups.
    jobs: VecDeque<(usize, J)>,
    /// Groups and results of jobs that were begun, as far as they aren't taken; `None` while one isn't there.
    results: VecDeque<(usize, Option<R>)>,
    /// Results that were taken.
    taken: usize,
    /// No more jobs are begun, and no more results come.
    stopped: bool,
}

impl<J: Send + 'static, R: Send + 'static> Pipeline<J, R> {
    /// Runs jobs, each with the number of its group, which never falls. Jobs of so many `groups` are begun, counted from
    /// that of the next result.
    pub(super) fn start(
        workers: usize,
        groups: usize,
        jobs: VecDeque<(usize, J)>,
        work: impl Fn(J) -> R + Send + Sync + 'static,
    ) -> Self {
        let workers = workers.clamp(1, jobs.len().max(1));
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs,
                results: VecDeque::new(),
                taken: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
            groups: groups.max(1),
        });
        let work = Arc::new(work);
        let worker = |_| {
            let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
            std::thread::spawn(move || {
                // Whoever waits for the result of work that panics must not wait for ever.
                let guard = StopOnPanic(&shared);
                while let Some((number, job)) = shared.begin() {
                    shared.finish(number, work(job));
                }
                drop(guard);
            })
        };
        let workers = (0..workers).map(worker).collect();
        Self { shared, workers }
    }
}

impl<J, R> Iterator for Pipeline<J, R> {
    type Item = R;

    /// Waits for the next result; `None` after the last, or where a job has panicked.
    fn next(&mut self) -> Option<R> {
        let mut queue = self.shared.lock();
        loop {
            if let Some((_, result)) = queue.results.front_mut() {
                if let Some(result) = result.take() {
                    queue.results.pop_front();
                    queue.taken += 1;
                    self.shared.changed.notify_all();
                    return Some(result);
                }
            } else if queue.jobs.is_empty() {
                return None;
            }
            if queue.stopped {
                return None;
            }
            queue = self.shared.wait(queue);
        }
    }
}

impl<J, R> Drop for Pipeline<J, R> {
    fn drop(&mut self) {
        self.shared.stop();
        for worker in self.workers.drain(..) {
            // One that panicked has said so.
            let _ = worker.join();
        }
    }
}

impl<J, R> Shared<J, R> {
    /// Waits until there is room for the next job's result; the job and its number.
    fn begin(&self) -> Option<(usize, J)> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let next = queue.jobs.front()?.0;
            let first = queue.results.front().map_or(next, |&(group, _)| group);
            if next < first + self.groups {
                let number = queue.taken + queue.results.len();
                queue.results.push_back((next, None));
                return queue.jobs.pop_front().map(|(_, job)| (number, job));
            }
            queue = self.wait(queue);
        }
    }

    fn finish(&self, number: usize, result: R) {
        let mut queue = self.lock();
        let place = number - queue.taken;
        if let Some((_, empty)) = queue.results.get_mut(place) {
            *empty = Some(result);
        }
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// The queue is whole whenever its lock is free, so that a panic elsewhere doesn't matter.
    fn lock(&self) -> MutexGuard<'_, Queue<J, R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue<J, R>>) -> MutexGuard<'a, Queue<J, R>> {
        self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }
}

struct StopOnPanic<'a, J, R>(&'a Shared<J, R>);

impl<J, R> Drop for StopOnPanic<'_, J, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn results_come_in_the_order_of_the_jobs(
            sizes in proptest::collection::vec(1_usize..5, 0..20), workers in 1_usize..6, groups in 1_usize..4,
        ) {
            let groups_of = sizes.iter().enumerate().flat_map(|(group, &size)| vec![group; size]);
            let jobs: VecDeque<(usize, usize)> = groups_of.enumerate().map(|(job, group)| (group, job)).collect();
            let count = jobs.len();
            let pipeline = Pipeline::start(workers, groups, jobs, |job: usize| {
                if job.is_multiple_of(3) {
                    std::thread::yield_now();
                }
                job * 2
            });
            prop_assert_eq!(pipeline.collect::<Vec<_>>(), (0..count).map(|job| job * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_groups_are_begun_than_there_is_room_for() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let jobs = (0..100).map(|job| (job / 2, job)).collect();
        let mut pipeline = Pipeline::start(8, 3, jobs, move |job| {
            counter.fetch_add(1, Ordering::SeqCst);
            job
        });
        for taken in 1..=100 {
            assert_eq!(pipeline.next(), Some(taken - 1));
            // The groups of the next result and of two beyond it, two jobs each.
            assert!(begun.load(Ordering::SeqCst) <= (taken / 2 + 3) * 2);
        }
        assert_eq!(pipeline.next(), None);
        assert_eq!(begun.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn dropping_it_ends_the_threads() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let jobs = (0..1000).map(|job| (job, job)).collect();
        let mut pipeline = Pipeline::start(4, 2, jobs, move |job| (Arc::strong_count(&held), job).1);
        assert_eq!(pipeline.next(), Some(0));
        drop(pipeline);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn a_job_that_panics_ends_the_results() {
        let jobs = (0..10).map(|job| (0, job)).collect();
        let pipeline = Pipeline::start(2, 1, jobs, |job: usize| {
            assert_ne!(job, 5);
            job
        });
        let results: Vec<usize> = pipeline.collect();
        assert!(results.len() <= 5 && results.iter().copied().eq(0..results.len()));
    }
}
