//! Loads the JPEGs of a folder with augmentation: images per second of processor time, all threads of the process together.
//!
//! `cargo bench -p trainer --bench data -- --help`; `cargo xtask bench data` runs it beside Pillow and NumPy.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use mimalloc::MiMalloc;
use model::InputShape;
use rustix::time::{ClockId, clock_gettime};
use tch::Device;
use trainer::data::{Augmentation, DataSet, Loader, LoaderOptions, epoch_batches};

/// As in the program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const INPUT: InputShape = InputShape {
    channels: 3,
    height: 224,
    width: 224,
};
const BATCH: usize = 64;
/// Rounds through the folder that make an epoch: real data sets have a thousand times the images.
const ROUNDS: usize = 16;

/// Measures how fast images are loaded.
#[derive(Parser)]
struct Options {
    /// An image folder with train/ and val/
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Processor time to measure for
    #[arg(long, default_value = "5", value_name = "S")]
    seconds: f64,
    /// As cargo says it; it means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    tch::set_num_threads(1);
    let data = DataSet::open(Some(&options.folder))?;
    let loading = LoaderOptions {
        augmentation: Augmentation::random_resized_crop(),
        seed: 1,
        workers: 1,
        skip_corrupt: false,
    };
    let preprocessing = data.preprocessing(INPUT);
    let loader = Loader::new(&data.train, &preprocessing, INPUT, Device::Cpu, loading)?;
    let mut images = 0;
    let limit = Duration::try_from_secs_f64(options.seconds)?;
    // The first epoch warms up.
    let mut start = None;
    for epoch in 0.. {
        let round = |round| epoch_batches(data.train.len(), BATCH, 1, epoch * ROUNDS + round);
        let batches: Vec<_> = (0..ROUNDS).flat_map(round).collect();
        for batch in loader.load(epoch, &batches) {
            images += batch?.indices.len();
        }
        let now = processor_time()?;
        let begun = *start.get_or_insert_with(|| {
            images = 0;
            now
        });
        if now - begun >= limit {
            println!("{}", images as f64 / (now - begun).as_secs_f64());
            break;
        }
    }
    Ok(())
}

fn processor_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time)
        .ok()
        .context("the clock of the process is wrong")
}
