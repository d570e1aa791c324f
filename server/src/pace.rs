//! How fast a network has been computed lately, from which follows how long what comes next will wait.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How fast a network has been computed lately.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nanoseconds that a request took, as a moving average.
    per_request: AtomicU64,
    /// The same for an image.
    per_image: AtomicU64,
    /// Images that are being computed.
    running: AtomicUsize,
}

/// Images that are being computed.
#[derive(Debug)]
pub struct Running<'a> {
    pace: &'a Pace,
    images: usize,
}

impl Pace {
    /// So many images are being computed as long as what is returned is kept.
    pub fn runs(&self, images: usize) -> Running<'_> {
        self.running.fetch_add(images, Ordering::Relaxed);
        Running { pace: self, images }
    }

    /// Remembers how long a run took.
    pub fn ran(&self, requests: usize, images: usize, time: Duration) {
        average(&self.per_request, time, requests);
        average(&self.per_image, time, images);
    }

    /// How long so many requests will take.
    pub fn time_for_requests(&self, requests: usize) -> Duration {
        times(&self.per_request, requests)
    }

    /// How long so many images will take, together with those that are being computed.
    pub fn time_for_images(&self, images: usize) -> Duration {
        times(
            &self.per_image,
            images.saturating_add(self.running.load(Ordering::Relaxed)),
        )
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.pace.running.fetch_sub(self.images, Ordering::Relaxed);
    }
}

/// Lets a moving average follow a time that was taken for `count` things.
fn average(average: &AtomicU64, time: Duration, count: usize) {
    let latest = u64::try_from(time.as_nanos() / count.max(1) as u128).unwrap_or(u64::MAX);
    // Two that come at once may forget one of them, which an average can bear.
    let now = match average.load(Ordering::Relaxed) {
        0 => latest,
        before => before - before / 8 + latest / 8,
    };
    average.store(now, Ordering::Relaxed);
}

fn times(average: &AtomicU64, count: usize) -> Duration {
    Duration::from_nanos(average.load(Ordering::Relaxed).saturating_mul(count as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_next_takes_as_long_as_what_came_lately() {
        let pace = Pace::default();
        assert_eq!(pace.time_for_images(1000), Duration::ZERO, "nothing is known yet");
        pace.ran(2, 16, Duration::from_micros(160));
        assert_eq!(pace.time_for_images(5), Duration::from_micros(50));
        assert_eq!(pace.time_for_requests(3), Duration::from_micros(240));
        for _ in 0..100 {
            pace.ran(1, 1, Duration::from_micros(20));
        }
        let time = pace.time_for_images(1);
        assert!(time > Duration::from_micros(19), "{time:?}");
    }

    #[test]
    fn what_is_being_computed_has_to_be_waited_for() {
        let pace = Pace::default();
        pace.ran(1, 1, Duration::from_micros(10));
        let running = pace.runs(7);
        assert_eq!(pace.time_for_images(2), Duration::from_micros(90));
        drop(running);
        assert_eq!(pace.time_for_images(2), Duration::from_micros(20));
    }
}
