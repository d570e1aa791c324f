//! Connections that come in. A system that has no more open files to give says so at once, every time that it is asked:
//! asking again waits a moment.

use std::io;
use std::time::Duration;

use futures_util::{Stream, stream};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use super::KEEPALIVE;

/// How long nothing is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a port.
pub(super) fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        let (stream, _) = next(|| listener.accept()).await;
        prepare(&stream);
        Some((Ok(stream), listener))
    })
}

/// The next connection.
async fn next<T, F: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> F) -> T {
    loop {
        match accept().await {
            Ok(stream) => return stream,
            // A client that has gone again.
            Err(error) if is_client_s(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_client_s(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};

    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Answers go out at once, and a client that is gone without a word is noticed.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = prepared {
        // A connection that is broken already.
        tracing::debug!(%error, "a connection can't be prepared");
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn what_cannot_be_accepted_is_asked_for_again() {
        // What the system says of too many open files has no kind of its own.
        let answers = [
            Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
            Err(io::Error::from_raw_os_error(24)),
            Ok(7),
        ];
        let mut answers = answers.into_iter();
        assert_eq!(next(|| ready(answers.next().unwrap())).await, 7);
    }
}
