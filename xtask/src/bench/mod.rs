//! `cargo xtask bench NAME`: measures the programs against baselines. Every benchmark prints one table and writes
//! `target/bench/NAME.json`; `docs/benchmarks.md` says what the metrics are.

mod brainscore;
mod data;
mod disk;
mod environment;
mod export;
mod measurements;
mod metric;
mod process;
mod results;
mod serve;
mod table;
mod train;

use anyhow::Result;
use clap::Subcommand;

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Benchmark {
    /// Extraction through Brain-Score, from a server against ONNX Runtime in Brain-Score's own process
    Brainscore(brainscore::Options),
    /// Decoding and augmenting photographs, beside Pillow and NumPy
    Data(data::Options),
    /// A locally connected ResNet-18 of full size (7.25 GB): export it, load it and compute it in ONNX Runtime
    Export(export::Options),
    /// The server against LitServe and FastAPI, ONNX Runtime and plain TCP, and under more load than it can bear
    Serve(serve::Options),
    /// The training engine: a layer, the optimiser, a training step
    Train(train::Options),
}

/// Runs a benchmark.
pub(crate) fn run(benchmark: &Benchmark) -> Result<()> {
    match benchmark {
        Benchmark::Brainscore(options) => brainscore::run(options),
        Benchmark::Data(options) => data::run(options),
        Benchmark::Export(options) => export::run(options),
        Benchmark::Serve(options) => serve::run(options),
        Benchmark::Train(options) => train::run(options),
    }
}
