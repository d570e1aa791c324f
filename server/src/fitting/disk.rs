//! How much of the disk fits take: what their activations take while they last, and their projections until they are
//! deleted.

use std::sync::{Arc, Mutex, PoisonError};

use super::FitError;

/// Counts the bytes of all fits.
#[derive(Debug)]
pub struct Disk {
    limit: u64,
    used: Mutex<u64>,
}

/// A part of it, until this is dropped.
#[derive(Debug)]
pub struct DiskSpace {
    disk: Arc<Disk>,
    bytes: u64,
}

impl Disk {
    /// None of `limit` bytes is used.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Mutex::new(0),
        }
    }

    /// Nothing yet, which can become more.
    pub fn space(self: &Arc<Self>) -> DiskSpace {
        DiskSpace {
            disk: Arc::clone(self),
            bytes: 0,
        }
    }

    /// Bytes that are used.
    pub fn used(&self) -> u64 {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskSpace {
    /// Makes it `bytes`.
    ///
    /// # Errors
    /// [`FitError::Disk`] where that is more than there is; it stays as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), FitError> {
        let mut used = self.disk.used.lock().unwrap_or_else(PoisonError::into_inner);
        let total = (*used - self.bytes).saturating_add(bytes);
        if bytes > self.bytes && total > self.disk.limit {
            return Err(FitError::Disk {
                limit: self.disk.limit,
            });
        }
        *used = total;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for DiskSpace {
    fn drop(&mut self) {
        *self.disk.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_counted_until_it_is_dropped() {
        let disk = Arc::new(Disk::new(10));
        let (mut first, mut second) = (disk.space(), disk.space());
        first.resize(6).unwrap();
        second.resize(4).unwrap();
        assert!(matches!(second.resize(5), Err(FitError::Disk { limit: 10 })));
        assert_eq!(disk.used(), 10);
        first.resize(2).unwrap();
        second.resize(8).unwrap();
        drop(first);
        assert_eq!(disk.used(), 8);
        drop(second);
        assert_eq!(disk.used(), 0);
    }
}
