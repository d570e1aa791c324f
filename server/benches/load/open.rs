//! An open loop: requests come at random times (a Poisson process), whether those before them are answered or not, as
//! they do from many clients that don't know of each other. A request's time begins when it was to be sent, not when
//! the generator came to it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

use crate::connection::{Answer, Connection, WireRequest};
use crate::latencies::Latencies;
use crate::{RequestArguments, print};

/// Of the random times, so that runs are alike.
const SEED: u64 = 7;

/// For how long a connection on which nothing is asked is used again: servers close those that wait for some seconds.
const IDLE: Duration = Duration::from_secs(1);

/// What the requests share.
struct Shared {
    request: WireRequest,
    /// Connections on which nothing is asked, since when; the latest last.
    idle: RefCell<Vec<(Connection, Instant)>>,
    begin: Instant,
    accepted: RefCell<Latencies>,
    refused: RefCell<Latencies>,
}

/// Sends `rate` requests a second.
pub(super) async fn run(arguments: &RequestArguments, rate: f64) -> Result<()> {
    ensure!(rate > 0.0, "the rate must be above 0");
    let start = Instant::now();
    let begin = start + arguments.time.warm_up();
    let end = begin + arguments.time.measured();
    let shared = Rc::new(Shared {
        request: WireRequest::new(arguments)?,
        idle: RefCell::default(),
        begin,
        accepted: RefCell::default(),
        refused: RefCell::default(),
    });
    let (times, mut due) = mpsc::unbounded_channel();
    // A thread of its own: the runtime's timers are coarse.
    let clock = std::thread::spawn(move || {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut time = start;
        loop {
            // In (0, 1], whose logarithm is finite.
            let uniform = 1.0 - random.random::<f64>();
            time += Duration::from_secs_f64(-uniform.ln() / rate);
            if time >= end || times.send(time).is_err() {
                return;
            }
            std::thread::sleep(time.saturating_duration_since(Instant::now()));
        }
    });
    let tasks = LocalSet::new();
    let sending = async {
        let mut requests = JoinSet::new();
        while let Some(time) = due.recv().await {
            tokio::time::sleep_until(time.into()).await;
            let shared = Rc::clone(&shared);
            requests.spawn_local(async move { shared.ask(time).await });
            while let Some(done) = requests.try_join_next() {
                done??;
            }
        }
        while let Some(done) = requests.join_next().await {
            done??;
        }
        anyhow::Ok(())
    };
    tasks.run_until(sending).await?;
    let _ = clock.join();
    let (mut accepted, mut refused) = (shared.accepted.borrow_mut(), shared.refused.borrow_mut());
    let all = (accepted.len() + refused.len()) as f64;
    print("offered", all / arguments.time.seconds, "1/s");
    print("accepted", accepted.len() as f64 / arguments.time.seconds, "1/s");
    print("refused_share", refused.len() as f64 / all.max(1.0), "");
    accepted.print("");
    refused.print("refusal.");
    Ok(())
}

impl Shared {
    async fn ask(&self, time: Instant) -> Result<()> {
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some((connection, since)) if since.elapsed() < IDLE => connection,
            _ => Connection::open(&self.request).await?,
        };
        let answer = connection.ask(&self.request).await?;
        self.idle.borrow_mut().push((connection, Instant::now()));
        if time >= self.begin {
            let latencies = match answer {
                Answer::Ok => &self.accepted,
                Answer::Refused => &self.refused,
            };
            latencies.borrow_mut().push(time.elapsed());
        }
        Ok(())
    }
}
