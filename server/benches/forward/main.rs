//! Times an exported network in ONNX Runtime, through the server's own bundles and sessions, and the machine's peaks
//! beside it.
//!
//! `cargo bench -p server --bench forward -- --bundle REPO/MODEL/VERSION` prints a JSON object a line:
//! `{"name": "forward.b1", "value": …, "unit": "s"}`. `cargo xtask bench export` runs it.
#![expect(clippy::print_stdout, reason = "prints its results")]

mod bandwidth;
mod gemm;
mod network;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use network::ExportedNetwork;
use serde_json::json;
use server::ProviderChoice;
use server::onnx_runtime::OnnxRuntime;

/// Times an exported network on the CPU.
#[derive(Parser)]
struct Arguments {
    /// Folder of one version of a model; without it, nothing is run.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Images a forward pass to the readout.
    #[arg(
        long,
        default_value = "1,8,32,64",
        value_delimiter = ',',
        value_name = "N,N,…"
    )]
    batch_sizes: Vec<usize>,
    /// Images a forward pass with all layers as outputs.
    #[arg(long, default_value = "1,8,32", value_delimiter = ',', value_name = "N,N,…")]
    all_layers_batch_sizes: Vec<usize>,
    /// Images a forward pass that is split into stages.
    #[arg(long, default_value = "32", value_name = "N")]
    stage_batch_size: usize,
    /// Runs of everything after one to warm up; the best counts.
    #[arg(long, default_value = "4", value_name = "N")]
    runs: usize,
    /// Threads; without it, as many as there are cores.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(folder) = &arguments.bundle else {
        println!("nothing to time without --bundle; see `cargo xtask bench export`");
        return Ok(());
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = arguments.threads.map_or(cores, NonZeroUsize::get);
    let runtime = OnnxRuntime::start(Some(threads), ProviderChoice::Cpu)?;
    let network = ExportedNetwork::open(runtime.clone(), folder, arguments.runs)
        .with_context(|| format!("can't use the bundle {}", folder.display()))?;
    print("open_bundle", network.opening, "s");
    print("weight_bytes", network.weight_bytes()? as f64, "bytes");
    print("macs", network.macs()? as f64, "multiply-adds");

    let readout = ["fc"];
    let (mut session, seconds) = network.load(&readout)?;
    print("load", seconds, "s");
    for &images in &arguments.batch_sizes {
        print(
            &format!("forward.b{images}"),
            network.time(&mut session, images)?,
            "s",
        );
    }
    drop(session);

    let layers = network.layers();
    let (mut session, _) = network.load(&layers)?;
    for &images in &arguments.all_layers_batch_sizes {
        let name = format!("forward.all_layers.b{images}");
        print(&name, network.time(&mut session, images)?, "s");
    }
    drop(session);

    let images = arguments.stage_batch_size;
    for stage in network.stages()? {
        print(
            &format!("stage_macs.{}", stage.last_layer),
            stage.macs as f64,
            "multiply-adds",
        );
        let (mut session, _) = network.load(&[&stage.last_layer])?;
        let name = format!("forward_to.{}.b{images}", stage.last_layer);
        print(&name, network.time(&mut session, images)?, "s");
    }

    print("gemm_peak", gemm::peak(&runtime)?, "FLOP/s");
    print("read_bandwidth", bandwidth::read(threads), "bytes/s");
    Ok(())
}

fn print(name: &str, value: f64, unit: &str) {
    println!("{}", json!({"name": name, "value": value, "unit": unit}));
}
