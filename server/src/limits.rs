//! What a request may cost at most. Every limit is checked before anything of that size is allocated, and every error
//! states the limit that it hit.

use std::time::Duration;

/// What a request may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an HTTP request's body.
    pub body_bytes: usize,
    /// Bytes of a gRPC message, in either direction.
    pub message_bytes: usize,
    /// Bytes and pixels of one encoded image.
    pub image: model::image::Limits,
    /// Images of one request.
    pub images: usize,
    /// Bytes of the network's input for one request, and of all activations that one request asks for.
    pub tensor_bytes: usize,
    /// Requests that the server works on at a time, those included whose answers are still being sent. More are told to
    /// come back later.
    pub concurrent_requests: usize,
    /// Requests that wait for one network at the same depth, or are computed by it. More are told to come back later.
    pub queue_length: usize,
    /// Bytes of stimuli, inputs and activations of all requests together. A request that would exceed it is told to come back
    /// later; one that would do so by itself never fits.
    pub memory_bytes: usize,
    /// How long a request may take, from its arrival to its answer; for a stream: each of its messages, and how long its client
    /// may send nothing while nothing of it is in work.
    pub time: Duration,
    /// How long a client may leave an answer unread that waits for it. Then its place, and what it still waits for, is given up.
    pub unread: Duration,
    /// Bytes of inputs and activations that one stream has in flight.
    pub stream_bytes: usize,
    /// Bytes of all uploaded projections together.
    pub projection_bytes: usize,
}

const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 * MIB,
            message_bytes: 1024 * MIB,
            image: model::image::Limits::default(),
            images: 4096,
            // The rest of a message: names, shapes and framing.
            tensor_bytes: 1023 * MIB,
            concurrent_requests: 1024,
            queue_length: 512,
            memory_bytes: 8 * 1024 * MIB,
            time: Duration::from_secs(300),
            unread: Duration::from_secs(600),
            stream_bytes: 256 * MIB,
            projection_bytes: 2 * 1024 * MIB,
        }
    }
}
