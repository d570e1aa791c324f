//! How long a request spent in each stage.

use std::time::Duration;

/// How long a request spent in each stage. The parts of a large request overlap, so that the stages of all parts add up
/// to more than the time that its caller waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Stimuli become the network's input.
    pub decode: Duration,
    /// Waiting for a batch.
    pub queue: Duration,
    /// The network's computation, that of the other images in the batch included.
    pub compute: Duration,
    /// Activations become what the answer holds: pooled, rounded, compressed.
    pub serialise: Duration,
    /// Batches in which the request was computed.
    pub batches: usize,
    /// Images in them, those of other requests included.
    pub batch_images: usize,
}

impl Timings {
    /// Adds those of another part.
    pub fn add(&mut self, other: &Self) {
        self.decode += other.decode;
        self.queue += other.queue;
        self.compute += other.compute;
        self.serialise += other.serialise;
        self.batches += other.batches;
        self.batch_images += other.batch_images;
    }
}
