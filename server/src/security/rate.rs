//! A token bucket: so many requests a second on average, a second's worth of them at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts requests against a rate.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    /// Most that may come at once.
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests that may come now.
    available: f64,
    /// When that was so.
    at: Instant,
}

impl Rate {
    /// A bucket that is full at `now`; `per_second` is above 0. At least one request fits in it.
    pub fn new(per_second: f64, now: Instant) -> Self {
        let burst = per_second.max(1.0);
        Self {
            per_second,
            burst,
            state: Mutex::new(State {
                available: burst,
                at: now,
            }),
        }
    }

    /// Takes one request out of the bucket.
    ///
    /// # Errors
    /// How long it will be until there is one.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Threads may come here in another order than they looked at the clock in.
        let passed = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = state.at.max(now);
        state.available = (state.available + passed * self.per_second).min(self.burst);
        if state.available >= 1.0 {
            state.available -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - state.available) / self.per_second;
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_one_after_the_other() {
        let start = Instant::now();
        let rate = Rate::new(4.0, start);
        for _ in 0..4 {
            rate.take(start).unwrap();
        }
        assert_eq!(rate.take(start), Err(Duration::from_millis(250)));
        let later = start + Duration::from_millis(250);
        rate.take(later).unwrap();
        rate.take(start).unwrap_err();
        assert_eq!(rate.take(later), Err(Duration::from_millis(250)));
        let much_later = start + Duration::from_secs(3600);
        let taken = (0..10).filter(|_| rate.take(much_later).is_ok()).count();
        assert_eq!(taken, 4, "what isn't used doesn't add up");
    }

    #[test]
    fn slow_rates_let_one_request_through() {
        let start = Instant::now();
        let rate = Rate::new(0.1, start);
        rate.take(start).unwrap();
        assert_eq!(rate.take(start), Err(Duration::from_secs(10)));
        let never = Rate::new(f64::MIN_POSITIVE, start);
        never.take(start).unwrap();
        assert_eq!(never.take(start), Err(Duration::MAX));
    }
}
