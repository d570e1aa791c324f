//! A closed loop: so many clients, each of which sends its next request when the last one is answered.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, bail};
use tokio::task::LocalSet;

use crate::connection::{Answer, Connection, WireRequest};
use crate::latencies::Latencies;
use crate::{RequestArguments, print};

/// Runs for a time, or until so many requests are answered.
pub(super) async fn run(
    arguments: &RequestArguments,
    connections: usize,
    requests: Option<u64>,
) -> Result<()> {
    let request = Rc::new(WireRequest::new(arguments)?);
    let left = Rc::new(AtomicU64::new(requests.unwrap_or(u64::MAX)));
    let begin = Instant::now() + arguments.time.warm_up();
    let end = requests.is_none().then(|| begin + arguments.time.measured());
    let tasks = LocalSet::new();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let (request, left) = (Rc::clone(&request), Rc::clone(&left));
            tasks.spawn_local(async move { client(&request, begin, end, &left).await })
        })
        .collect();
    let mut latencies = Latencies::default();
    tasks
        .run_until(async {
            for client in clients {
                latencies.append(client.await??);
            }
            anyhow::Ok(())
        })
        .await?;
    if requests.is_none() {
        let rate = latencies.len() as f64 / arguments.time.measured().as_secs_f64();
        print("requests_per_second", rate, "1/s");
    }
    latencies.print("");
    Ok(())
}

/// One client; the times of what was answered between `begin` and `end`.
async fn client(
    request: &WireRequest,
    begin: Instant,
    end: Option<Instant>,
    left: &AtomicU64,
) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut connection = Connection::open(request).await?;
    loop {
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let asked = Instant::now();
        if taken.is_err() || end.is_some_and(|end| asked >= end) {
            return Ok(latencies);
        }
        if connection.ask(request).await? == Answer::Refused {
            bail!("the server refused a request: use fewer connections");
        }
        let answered = Instant::now();
        if answered >= begin && end.is_none_or(|end| answered < end) {
            latencies.push(answered - asked);
        }
    }
}
