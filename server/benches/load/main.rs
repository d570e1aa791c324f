//! Generates load for a server, from a process of its own, and measures what comes back.
//!
//! `cargo bench -p server --bench load -- closed --url http://127.0.0.1:8080/v1/models/lc/classify --image 28`
//! prints a JSON object a line: `{"name": "p99", "value": …, "unit": "s"}`. `cargo xtask bench serve` runs it.
//!
//! One thread does everything: a generator that takes more than a little of the machine would measure itself.
#![expect(clippy::print_stdout, reason = "prints its results")]

mod closed;
mod connection;
mod latencies;
mod loopback;
mod open;
mod overhead;
mod stream;

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use mimalloc::MiMalloc;
use serde_json::json;

/// The server's: a generator whose memory is cleared by the system again and again would hold a server up.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Generates load for a server.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    load: Option<Load>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Load {
    /// Clients that send their next request when the last one is answered
    Closed {
        #[command(flatten)]
        request: RequestArguments,
        /// Clients
        #[arg(long, value_name = "N", default_value_t = 64)]
        connections: usize,
        /// Requests in all, instead of a time
        #[arg(long, value_name = "N")]
        requests: Option<u64>,
    },
    /// Requests at random times, whether those before them are answered or not
    Open {
        #[command(flatten)]
        request: RequestArguments,
        /// Requests a second
        #[arg(long, value_name = "R")]
        rate: f64,
    },
    /// A gRPC stream of activations
    Stream(stream::Arguments),
    /// What a bare copy through a TCP connection of this machine moves
    Loopback {
        #[command(flatten)]
        time: TimeArguments,
    },
    /// A batch by gRPC, in turns with the same batch in ONNX Runtime
    Overhead(overhead::Arguments),
}

/// A request by HTTP.
#[derive(Args)]
struct RequestArguments {
    /// Where the request goes
    #[arg(long, value_name = "URL")]
    url: String,
    /// The sides of the grey PNG that is the request's body
    #[arg(long, value_name = "PIXELS")]
    image: u32,
    /// The image as hexadecimal digits in JSON, `{"image": "89504e47…"}`, for servers that take no images as they are
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    time: TimeArguments,
}

/// How long to measure.
#[derive(Args, Clone, Copy)]
struct TimeArguments {
    /// Seconds that count
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before them
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warm_up: f64,
}

impl TimeArguments {
    fn measured(self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warm_up(self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

fn main() -> Result<()> {
    let Some(load) = Arguments::parse().load else {
        println!("nothing to do without a kind of load; see `cargo xtask bench serve`");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match load {
        Load::Closed {
            request,
            connections,
            requests,
        } => runtime.block_on(closed::run(&request, connections, requests)),
        Load::Open { request, rate } => runtime.block_on(open::run(&request, rate)),
        Load::Stream(arguments) => runtime.block_on(stream::run(&arguments)),
        Load::Loopback { time } => loopback::run(time),
        Load::Overhead(arguments) => runtime.block_on(overhead::run(&arguments)),
    }
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{}", json!({"name": name, "value": value, "unit": unit}));
}
