//! Sessions by bundle and layers: made when they are first needed, kept while they are in use or recently were.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::bundle::Bundle;
use crate::error::InternalError;
use crate::onnx_runtime::OnnxRuntime;
use crate::session::Session;
use crate::session_pool::SessionPool;

/// Sessions by bundle and layers.
pub struct SessionCache {
    onnx_runtime: OnnxRuntime,
    /// Where loading blocks.
    handle: Handle,
    /// Sessions of a pool.
    instances: NonZeroUsize,
    /// Requests that a pool accepts at a time.
    queue_length: usize,
    /// Pools that are kept; the least recently used one makes room for a new one.
    capacity: usize,
    entries: Mutex<Entries>,
}

/// What sessions are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The bundle's id, which is another one's after the bundle was replaced.
    bundle: u64,
    /// Positions in the manifest's list, sorted, each once.
    layers: Vec<usize>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    /// Counts look-ups.
    clock: u64,
}

struct Entry {
    /// Empty while the sessions are being loaded; those who wait for them share the loading.
    pool: Arc<OnceCell<Arc<SessionPool>>>,
    last_used: u64,
}

impl SessionCache {
    /// An empty cache; sessions are loaded on `handle`'s blocking threads.
    pub fn new(
        onnx_runtime: OnnxRuntime,
        handle: Handle,
        instances: NonZeroUsize,
        queue_length: usize,
        capacity: NonZeroUsize,
    ) -> Self {
        Self {
            onnx_runtime,
            handle,
            instances,
            queue_length,
            capacity: capacity.get(),
            entries: Mutex::default(),
        }
    }

    /// What sessions are loaded with.
    pub fn onnx_runtime(&self) -> &OnnxRuntime {
        &self.onnx_runtime
    }

    /// The sessions for some layers: positions in the manifest's list, sorted, each once.
    ///
    /// # Errors
    /// [`InternalError`] where they can't be loaded; the next call tries again.
    pub async fn get(
        &self,
        bundle: &Arc<Bundle>,
        layers: &[usize],
    ) -> Result<Arc<SessionPool>, InternalError> {
        let key = Key {
            bundle: bundle.id,
            layers: layers.to_vec(),
        };
        let cell = self.lock().cell(key, self.capacity);
        let pool = cell.get_or_try_init(|| self.load(bundle, layers)).await?;
        Ok(Arc::clone(pool))
    }

    /// Drops the sessions of a bundle, by its id, that is no longer served. Requests that still use them keep them alive
    /// until they are done.
    pub fn release(&self, bundle: u64) {
        self.lock().by_key.retain(|key, _| key.bundle != bundle);
    }

    async fn load(&self, bundle: &Arc<Bundle>, layers: &[usize]) -> Result<Arc<SessionPool>, InternalError> {
        let (onnx_runtime, bundle, layers) = (self.onnx_runtime.clone(), Arc::clone(bundle), layers.to_vec());
        let (instances, queue_length) = (self.instances.get(), self.queue_length);
        let load = move || {
            let sessions = (0..instances).map(|_| Session::load(&onnx_runtime, &bundle, &layers));
            let sessions = sessions.collect::<Result<Vec<_>, _>>()?;
            Ok::<_, InternalError>(SessionPool::new(bundle, layers, sessions, queue_length))
        };
        Ok(Arc::new(self.handle.spawn_blocking(load).await??))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// The cell of a key, in which a pool is or will be; makes room if it is new.
    fn cell(&mut self, key: Key, capacity: usize) -> Arc<OnceCell<Arc<SessionPool>>> {
        self.clock += 1;
        let last_used = self.clock;
        if !self.by_key.contains_key(&key) && self.by_key.len() >= capacity {
            let oldest = self.by_key.iter().min_by_key(|(_, entry)| entry.last_used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                // Requests that still use the sessions keep them alive until they are done.
                self.by_key.remove(&oldest);
            }
        }
        let entry = self.by_key.entry(key).or_insert_with(|| Entry {
            pool: Arc::default(),
            last_used,
        });
        entry.last_used = last_used;
        Arc::clone(&entry.pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bundle: u64) -> Key {
        Key {
            bundle,
            layers: vec![0],
        }
    }

    #[test]
    fn the_least_recently_used_sessions_make_room() {
        const CAPACITY: usize = 3;

        let mut entries = Entries::default();
        for bundle in 0..CAPACITY as u64 {
            entries.cell(key(bundle), CAPACITY);
        }
        let kept = entries.cell(key(0), CAPACITY);
        entries.cell(key(1000), CAPACITY);
        assert_eq!(entries.by_key.len(), CAPACITY);
        assert!(!entries.by_key.contains_key(&key(1)));
        assert!(Arc::ptr_eq(&kept, &entries.cell(key(0), CAPACITY)));
    }
}
