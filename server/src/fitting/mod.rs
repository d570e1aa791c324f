//! Fitting projections: the principal components of layers' activations, for any number of images in bounded memory.
//!
//! A [`fit`](Fit) gathers the activations of some layers on the disk ([`spool`]), from one pass over the images. Then each
//! layer is decomposed as its [`plan`] says: from all eigenvalues of its shorter side (`exact`) or, where there are too
//! many images for that, in a random subspace (`randomised`). The [`components`] are written as a projection's `file`.
//! No file has a name, so that nothing is left of a fit that is given up, nor of a server that is killed. The [`Fitter`]
//! has fits wait for each other and counts what they take of the [`disk`].

pub mod components;
pub mod disk;
mod error;
mod exact;
mod file;
mod fit;
pub mod plan;
mod product;
mod randomised;
pub mod spool;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faer::Par;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use error::FitError;
pub use fit::{Fit, FitRequest, Fitted, Phase, Progress};

use crate::error::{InternalError, ServerError};
use disk::Disk;

/// What fits may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FittingOptions {
    /// Bytes of memory that a fit takes besides what its stream of images does.
    pub memory: usize,
    /// Bytes of the disk that the activations of a running fit and all fitted projections take together.
    pub disk: u64,
    /// Where they are; without it, in the system's folder for temporary files.
    pub folder: Option<PathBuf>,
    /// Fitted projections are kept beside their model, where that can be written.
    pub keep: bool,
}

/// Has fits wait for each other, and counts what they take.
#[derive(Debug)]
pub struct Fitter {
    options: FittingOptions,
    disk: Arc<Disk>,
    place: Arc<Semaphore>,
}

impl Default for FittingOptions {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            disk: 64 << 30,
            folder: None,
            keep: true,
        }
    }
}

impl Fitter {
    /// Computes with `threads` threads, as do all others in this process from now on.
    ///
    /// # Errors
    /// [`FitError::File`] where files can't be made in the folder that `options` names.
    pub fn new(options: FittingOptions, threads: usize) -> Result<Self, FitError> {
        if let Some(folder) = &options.folder {
            file::check(folder)?;
        }
        faer::set_global_parallelism(Par::rayon(threads.max(1)));
        Ok(Self::with(options))
    }

    /// Whether a fit could begin at once.
    pub fn is_free(&self) -> bool {
        self.place.available_permits() > 0
    }

    /// Waits until the fits before are done: only one has a place at a time, until it is dropped.
    ///
    /// # Errors
    /// [`ServerError::Internal`] at the server's end.
    pub async fn wait(&self) -> Result<OwnedSemaphorePermit, ServerError> {
        let place = Arc::clone(&self.place).acquire_owned().await;
        Ok(place.map_err(InternalError::from)?)
    }

    /// Begins a fit, which should have a place. Blocks.
    ///
    /// # Errors
    /// [`FitError::File`] where its files can't be made.
    pub fn begin(&self, request: FitRequest) -> Result<Fit, FitError> {
        let temporary = std::env::temp_dir();
        let folder: &Path = self.options.folder.as_ref().unwrap_or(&temporary);
        Fit::new(request, folder, &self.disk, self.options.memory)
    }

    /// Whether fitted projections are kept beside their model.
    pub fn keeps(&self) -> bool {
        self.options.keep
    }

    /// Bytes of the disk that fits and fitted projections take; those beside their models aren't counted.
    pub fn disk_used(&self) -> u64 {
        self.disk.used()
    }

    fn with(options: FittingOptions) -> Self {
        Self {
            disk: Arc::new(Disk::new(options.disk)),
            place: Arc::new(Semaphore::new(1)),
            options,
        }
    }
}

impl Default for Fitter {
    fn default() -> Self {
        Self::with(FittingOptions::default())
    }
}

#[cfg(test)]
mod tests;
