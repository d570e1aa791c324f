//! Memory that is used again: the first writing to fresh memory takes longer than many an image's normalisation.

use std::sync::Mutex;

/// Buffers that nobody uses at the moment. There are never more than were once used at a time.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<f32>>>);

impl Buffers {
    /// A buffer of so many values, which are any.
    pub(super) fn take(&self, length: usize) -> Vec<f32> {
        let unused = self.0.lock().ok().and_then(|mut unused| unused.pop());
        let mut buffer = unused.unwrap_or_default();
        buffer.resize(length, 0.0);
        buffer
    }

    /// Keeps a buffer for the next who takes one.
    pub(super) fn give_back(&self, buffer: Vec<f32>) {
        // Buffers are lost after a panic only, which ends the run.
        if let Ok(mut unused) = self.0.lock() {
            unused.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_whatever_its_length() {
        let buffers = Buffers::default();
        let first = buffers.take(100);
        let memory = first.as_ptr();
        buffers.give_back(first);
        let again = buffers.take(70);
        assert_eq!((again.as_ptr(), again.len()), (memory, 70));
        let other = buffers.take(5);
        assert_ne!(other.as_ptr(), memory);
        buffers.give_back(again);
        assert_eq!(buffers.take(200).len(), 200);
    }
}
