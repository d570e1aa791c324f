//! What waits to be computed, and what is computed next: nothing here waits, computes or knows what time it is.
//!
//! There is a queue for each target and priority. Interactive work goes before bulk work, and older before
//! younger. A batch is of one queue: bulk images in an interactive batch would make those who wait for it wait longer.
//! Once [`PATIENCE`] interactive batches in a row have gone before bulk work, that is next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::inference::options::Priority;

/// Interactive batches that go before waiting bulk work at most.
const PATIENCE: u32 = 8;

/// What waits, by targets `T`.
#[derive(Debug)]
pub(super) struct Queues<T, J> {
    queues: Vec<Queue<T, J>>,
    maximum_batch: usize,
    maximum_delay: Duration,
    /// Interactive batches since the last of bulk, while bulk work waited.
    passed_over: u32,
}

/// What waits for one target at one priority; never empty.
#[derive(Debug)]
struct Queue<T, J> {
    target: T,
    priority: Priority,
    entries: VecDeque<Entry<J>>,
    images: usize,
}

/// Something that waits.
#[derive(Debug)]
pub(super) struct Entry<J> {
    /// Different for every entry.
    pub id: u64,
    /// At most as many as a batch may have.
    pub images: usize,
    /// Whether it is a batch of its own.
    pub exclusive: bool,
    /// When it began to wait.
    pub since: Instant,
    /// What it is.
    pub job: J,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next<T, J> {
    /// Compute these in one batch.
    Batch(T, Vec<Entry<J>>),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// How much waits for a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Images of interactive requests.
    pub interactive: usize,
    /// Images of bulk requests.
    pub bulk: usize,
}

impl<T: Clone + PartialEq, J> Queues<T, J> {
    /// Nothing waits. A batch has at most `maximum_batch` images, and waits at most `maximum_delay` for company.
    pub fn new(maximum_batch: usize, maximum_delay: Duration) -> Self {
        Self {
            queues: Vec::new(),
            maximum_batch,
            maximum_delay,
            passed_over: 0,
        }
    }

    /// Appends an entry.
    pub fn push(&mut self, target: &T, priority: Priority, entry: Entry<J>) {
        let same = |queue: &&mut Queue<T, J>| queue.priority == priority && queue.target == *target;
        let queue = match self.queues.iter_mut().find(same) {
            Some(queue) => queue,
            None => {
                self.queues.push(Queue {
                    target: target.clone(),
                    priority,
                    entries: VecDeque::new(),
                    images: 0,
                });
                // Just pushed.
                let last = self.queues.len() - 1;
                &mut self.queues[last]
            }
        };
        queue.images += entry.images;
        queue.entries.push_back(entry);
    }

    /// Takes an entry away, if it still waits.
    pub fn remove(&mut self, id: u64) -> Option<Entry<J>> {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            // Identities grow, and entries are in the order in which they came.
            let Ok(position) = queue.entries.binary_search_by_key(&id, |entry| entry.id) else {
                continue;
            };
            let entry = queue.entries.remove(position)?;
            queue.images -= entry.images;
            if queue.entries.is_empty() {
                self.queues.swap_remove(index);
            }
            return Some(entry);
        }
        None
    }

    /// Since when the oldest entry of a target waits, and how many images do, if any does.
    pub fn waiting(&self, target: &T, priority: Priority) -> Option<(Instant, usize)> {
        let same = |queue: &&Queue<T, J>| queue.priority == priority && queue.target == *target;
        let queue = self.queues.iter().find(same)?;
        Some((queue.entries.front()?.since, queue.images))
    }

    /// What to do at the time `now`; targets for which `is_idle` is false have no session left.
    pub fn next(&mut self, now: Instant, is_idle: impl Fn(&T) -> bool) -> Next<T, J> {
        let mut earliest = None::<Instant>;
        let mut best = [None::<(Instant, usize)>; 2];
        for (index, queue) in self.queues.iter().enumerate() {
            let Some(head) = queue.entries.front().filter(|_| is_idle(&queue.target)) else {
                continue;
            };
            let delay = if head.exclusive || queue.images >= self.maximum_batch {
                Duration::ZERO
            } else {
                self.maximum_delay
            };
            let ready = head.since + delay;
            if ready > now {
                earliest = Some(earliest.map_or(ready, |earliest| earliest.min(ready)));
                continue;
            }
            let best = &mut best[queue.priority as usize];
            if best.is_none_or(|(since, _)| head.since < since) {
                *best = Some((head.since, index));
            }
        }
        let [interactive, bulk] = best;
        let index = match (interactive, bulk) {
            (Some(_), Some((_, bulk))) if self.passed_over >= PATIENCE => bulk,
            (Some((_, interactive)), _) => interactive,
            (None, Some((_, bulk))) => bulk,
            (None, None) => return earliest.map_or(Next::Nothing, Next::At),
        };
        match self.queues[index].priority {
            Priority::Interactive if bulk.is_some() => self.passed_over += 1,
            Priority::Interactive => {}
            Priority::Bulk => self.passed_over = 0,
        }
        let (target, entries) = self.take(index);
        Next::Batch(target, entries)
    }

    /// Whether there is something to compute, now or later, without anything else becoming idle.
    pub fn has_work(&self, is_idle: impl Fn(&T) -> bool) -> bool {
        self.queues.iter().any(|queue| is_idle(&queue.target))
    }

    /// The oldest entries of a queue that fit into a batch, at least one.
    fn take(&mut self, index: usize) -> (T, Vec<Entry<J>>) {
        let queue = &mut self.queues[index];
        let mut images = 0;
        let mut count = 0;
        for entry in &queue.entries {
            if count > 0 && (entry.exclusive || images + entry.images > self.maximum_batch) {
                break;
            }
            images += entry.images;
            count += 1;
            if entry.exclusive {
                break;
            }
        }
        queue.images -= images;
        let entries = queue.entries.drain(..count).collect();
        let target = queue.target.clone();
        if queue.entries.is_empty() {
            self.queues.swap_remove(index);
        }
        (target, entries)
    }

    /// How much waits for every target for which something does.
    pub fn depths(&self) -> Vec<(T, Depth)> {
        let mut depths: Vec<(T, Depth)> = Vec::new();
        for queue in &self.queues {
            let position = depths.iter().position(|(target, _)| *target == queue.target);
            let position = position.unwrap_or_else(|| {
                depths.push((queue.target.clone(), Depth::default()));
                depths.len() - 1
            });
            let depth = &mut depths[position].1;
            match queue.priority {
                Priority::Interactive => depth.interactive += queue.images,
                Priority::Bulk => depth.bulk += queue.images,
            }
        }
        depths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Bulk, Interactive};

    struct Fixture {
        queues: Queues<char, ()>,
        start: Instant,
        next_id: u64,
    }

    impl Fixture {
        fn new(maximum_batch: usize, milliseconds: u64) -> Self {
            Self {
                queues: Queues::new(maximum_batch, Duration::from_millis(milliseconds)),
                start: Instant::now(),
                next_id: 0,
            }
        }

        fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }

        fn push(&mut self, target: char, priority: Priority, images: usize, milliseconds: u64) -> u64 {
            let entry = Entry {
                id: self.next_id,
                images,
                exclusive: false,
                since: self.at(milliseconds),
                job: (),
            };
            self.next_id += 1;
            self.queues.push(&target, priority, entry);
            self.next_id - 1
        }

        /// The next batch's pool and entries, if there is one.
        fn batch(&mut self, milliseconds: u64) -> Option<(char, Vec<u64>)> {
            match self.queues.next(self.at(milliseconds), |_| true) {
                Next::Batch(pool, entries) => Some((pool, entries.iter().map(|entry| entry.id).collect())),
                Next::At(_) | Next::Nothing => None,
            }
        }
    }

    #[test]
    fn what_waits_for_the_same_pool_is_a_batch_as_far_as_it_fits() {
        let mut fixture = Fixture::new(4, 0);
        let (a, b) = ('a', 'b');
        for (pool, images) in [(a, 1), (b, 1), (a, 2), (a, 2), (a, 1)] {
            fixture.push(pool, Interactive, images, 0);
        }
        assert_eq!(fixture.batch(0), Some(('a', vec![0, 2])));
        let mut others = [fixture.batch(0), fixture.batch(0)];
        others.sort();
        assert_eq!(others, [Some(('a', vec![3, 4])), Some(('b', vec![1]))]);
        assert_eq!(fixture.batch(0), None);
    }

    #[test]
    fn only_what_has_an_idle_session_is_work() {
        let mut fixture = Fixture::new(4, 10);
        assert!(!fixture.queues.has_work(|_| true));
        fixture.push('a', Bulk, 1, 0);
        assert!(!fixture.queues.has_work(|&target| target != 'a'));
        // Though it still waits for company.
        assert!(fixture.queues.has_work(|&target| target == 'a'));
    }

    #[test]
    fn what_is_exclusive_is_a_batch_of_its_own() {
        let mut fixture = Fixture::new(9, 0);
        for (id, exclusive) in [(0, false), (1, true), (2, false), (3, false)] {
            let entry = Entry {
                id,
                images: 1,
                exclusive,
                since: fixture.start,
                job: (),
            };
            fixture.queues.push(&'a', Interactive, entry);
        }
        let batches = [0; 3].map(|_| fixture.batch(0).unwrap().1);
        assert_eq!(batches, [vec![0], vec![1], vec![2, 3]]);
    }

    #[test]
    fn the_oldest_is_next() {
        let mut fixture = Fixture::new(4, 0);
        let (a, b) = ('a', 'b');
        fixture.push(a, Interactive, 1, 2);
        fixture.push(b, Interactive, 1, 1);
        fixture.push(b, Interactive, 1, 3);
        assert_eq!(
            fixture.queues.waiting(&'b', Interactive),
            Some((fixture.at(1), 2))
        );
        assert_eq!(fixture.batch(3), Some(('b', vec![1, 2])));
        assert_eq!(fixture.queues.waiting(&'b', Interactive), None);
        assert_eq!(fixture.batch(3), Some(('a', vec![0])));
    }

    #[test]
    fn a_batch_waits_for_company_unless_it_is_full() {
        let mut fixture = Fixture::new(2, 10);
        let a = 'a';
        fixture.push(a, Interactive, 1, 0);
        match fixture.queues.next(fixture.at(9), |_| true) {
            Next::At(time) => assert_eq!(time, fixture.at(10)),
            other => panic!("{other:?}"),
        }
        assert_eq!(fixture.batch(10), Some(('a', vec![0])));
        fixture.push(a, Interactive, 1, 11);
        fixture.push(a, Interactive, 1, 12);
        assert_eq!(fixture.batch(12), Some(('a', vec![1, 2])));
    }

    #[test]
    fn interactive_work_goes_first_but_bulk_work_does_not_starve() {
        let mut fixture = Fixture::new(1, 0);
        let (a, b) = ('a', 'b');
        let bulk = fixture.push(b, Bulk, 1, 0);
        let mut before = 0;
        loop {
            fixture.push(a, Interactive, 1, 1);
            let (_, entries) = fixture.batch(1).unwrap();
            if entries == [bulk] {
                break;
            }
            before += 1;
        }
        assert_eq!(before, PATIENCE);
        fixture.push(b, Bulk, 1, 2);
        assert_eq!(fixture.batch(2).unwrap().0, 'a', "the count begins anew");
    }

    #[test]
    fn pools_without_an_idle_session_are_passed_over() {
        let mut fixture = Fixture::new(1, 0);
        let (a, b) = ('a', 'b');
        fixture.push(a, Interactive, 1, 0);
        fixture.push(b, Bulk, 1, 1);
        match fixture.queues.next(fixture.at(1), |pool| *pool == 'b') {
            Next::Batch(pool, _) => assert_eq!(pool, 'b'),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            fixture.queues.next(fixture.at(1), |pool| *pool == 'b'),
            Next::Nothing
        ));
    }

    #[test]
    fn what_is_removed_is_not_computed_and_no_longer_counted() {
        let mut fixture = Fixture::new(9, 0);
        let a = 'a';
        let ids = [1, 2, 3].map(|images| fixture.push(a, Interactive, images, 0));
        fixture.push(a, Bulk, 4, 0);
        let expected = |interactive, bulk| Depth { interactive, bulk };
        assert_eq!(fixture.queues.depths()[0].1, expected(6, 4));
        assert_eq!(fixture.queues.remove(ids[1]).unwrap().images, 2);
        assert!(fixture.queues.remove(ids[1]).is_none());
        assert_eq!(fixture.queues.depths()[0].1, expected(4, 4));
        assert_eq!(fixture.batch(0), Some(('a', vec![ids[0], ids[2]])));
        fixture.queues.remove(3).unwrap();
        assert_eq!(fixture.queues.depths(), []);
    }
}
