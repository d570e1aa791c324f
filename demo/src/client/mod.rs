//! The two protocols of the server, as a client uses them.

pub mod activations;
pub mod classification;
