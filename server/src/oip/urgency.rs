//! How urgent an inference request is: its parameters `timeout` and `priority`, as Triton understands them.

use std::time::{Duration, Instant};

use crate::error::ServerError;
use crate::inference::{Options, Priority};

/// The greatest number, which is the lowest priority, of requests that are computed before bulk work.
const INTERACTIVE: u64 = 1;

/// What a request says of its urgency; 0 is what it doesn't say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgency {
    /// Microseconds that the client waits.
    timeout: u64,
    /// 1 is the most urgent.
    priority: u64,
}

impl Urgency {
    /// Of a request's parameters: `whole_number` gives the value of one that is there, if it is a whole number from 0.
    ///
    /// # Errors
    /// [`ServerError::InvalidArgument`] where it isn't.
    pub fn of(whole_number: impl Fn(&str) -> Option<Option<u64>>) -> Result<Self, ServerError> {
        let value = |name: &str, what: &str| match whole_number(name) {
            None => Ok(0),
            Some(Some(value)) => Ok(value),
            Some(None) => Err(ServerError::InvalidArgument(format!(
                "the parameter `{name}` is not {what}"
            ))),
        };
        Ok(Self {
            timeout: value("timeout", "a whole number of microseconds")?,
            priority: value("priority", "a whole number from 0")?,
        })
    }

    /// The options of a request that has just come, and whose client stops waiting at `deadline`, if it said so.
    pub fn options(self, deadline: Option<Instant>) -> Options {
        let timeout = Some(self.timeout).filter(|&timeout| timeout > 0);
        let own = timeout.and_then(|timeout| Instant::now().checked_add(Duration::from_micros(timeout)));
        Options {
            priority: if self.priority <= INTERACTIVE {
                Priority::Interactive
            } else {
                Priority::Bulk
            },
            deadline: [own, deadline].into_iter().flatten().min(),
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_end_and_the_priority_count() {
        let urgency = |timeout, priority| {
            let value = move |name: &str| Some(Some(if name == "timeout" { timeout } else { priority }));
            Urgency::of(value).unwrap()
        };
        let later = Instant::now() + Duration::from_secs(3600);
        let options = urgency(0, 0).options(Some(later));
        assert_eq!(
            (options.deadline, options.priority),
            (Some(later), Priority::Interactive)
        );
        let options = urgency(1, 2).options(Some(later));
        assert!(options.deadline.unwrap() < later);
        assert_eq!(options.priority, Priority::Bulk);
        assert_eq!(urgency(u64::MAX, 1).options(None).priority, Priority::Interactive);
        assert_eq!(Urgency::of(|_| None).unwrap(), Urgency::default());
        let message = Urgency::of(|_| Some(None)).unwrap_err().to_string();
        assert!(message.contains("`timeout` is not a whole number"), "{message}");
    }
}
