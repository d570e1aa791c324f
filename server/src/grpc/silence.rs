//! Ends streams whose clients say nothing: a stream that waits for its client holds a place among the requests, and memory.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::Status;

use crate::error::ServerError;

/// The messages of a stream, which end with an error once the client has sent nothing for a time in which nothing of it was
/// in work. `is_idle` says whether nothing is: new work comes only with a message.
pub(super) fn bounded<M: Send + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    limit: Duration,
    is_idle: impl Fn() -> bool + Send + 'static,
) -> impl Stream<Item = Result<M, Status>> + Send + 'static {
    let messages: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(messages);
    stream::unfold(Some((messages, is_idle)), move |state| async move {
        let (mut messages, is_idle) = state?;
        loop {
            let was_idle = is_idle();
            match tokio::time::timeout(limit, messages.next()).await {
                Ok(next) => return Some((next?, Some((messages, is_idle)))),
                Err(_) if was_idle => {
                    tracing::info!("a stream's client sent nothing for {} s", limit.as_secs_f64());
                    return Some((Err(ServerError::DeadlineExceeded.into()), None));
                }
                Err(_) => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_silent_stream_ends_once_nothing_is_in_work() {
        // In work at the first three looks.
        let looks = Arc::new(AtomicUsize::new(0));
        let is_idle = {
            let looks = Arc::clone(&looks);
            move || looks.fetch_add(1, Ordering::Relaxed) >= 3
        };
        let messages = stream::iter([Ok(1)]).chain(stream::pending());
        let mut messages = std::pin::pin!(bounded(messages, Duration::from_millis(10), is_idle));
        assert_eq!(messages.next().await.unwrap().unwrap(), 1);
        let status = messages.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        // Before the message, twice in vain, and when nothing was in work any more.
        assert_eq!(looks.load(Ordering::Relaxed), 4);
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_ends_in_time_has_all_its_messages() {
        let messages = stream::iter([Ok(1), Ok(2)]);
        let messages = bounded(messages, Duration::from_secs(60), || true);
        let messages: Vec<_> = messages.map(Result::unwrap).collect().await;
        assert_eq!(messages, [1, 2]);
    }
}
