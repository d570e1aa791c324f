//! The `server` program: see `server --help`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// It gives the memory of large answers back without returning it to the system, which would have to clear it again for
/// the next one; and is faster for small things too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    server::cli::run(std::env::args_os())
}
