//! How fast this machine reads memory: all threads sum a buffer that no cache holds.

use std::hint::black_box;
use std::time::Instant;

/// 2 GiB.
const VALUES: usize = 1 << 29;
const PASSES: usize = 6;
/// Sums that don't wait for each other, enough of them to fill vectors.
const LANES: usize = 64;

/// Bytes a second in the best of several passes.
pub fn read(threads: usize) -> f64 {
    // Zeros would be one page, mapped everywhere. Each thread writes what it will read, so that it lies near to it.
    let mut buffer = vec![0.0_f32; VALUES];
    let part = VALUES.div_ceil(threads.max(1));
    std::thread::scope(|scope| {
        for values in buffer.chunks_mut(part) {
            scope.spawn(move || values.fill(1.0));
        }
    });
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for values in buffer.chunks(part) {
                scope.spawn(move || black_box(sum(values)));
            }
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    size_of_val(buffer.as_slice()) as f64 / best
}

fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value;
        }
    }
    sums.iter().sum::<f32>() + rest
}
