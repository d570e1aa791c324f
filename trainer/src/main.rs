//! The `trainer` program: see `trainer --help`.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

/// It keeps the memory of decoded images for the next ones, instead of returning it to the system, which would have to clear
/// it again. Tensors are libtorch's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    trainer::cli::run(trainer::cli::Arguments::parse())
}
