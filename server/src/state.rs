//! What both protocols share.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::bundle::Bundle;
use crate::error::ServerError;
use crate::fitting::Fitter;
use crate::inference::Inference;
use crate::limits::Limits;
use crate::oip::statistics::Statistics;
use crate::repository::{ModelRepository, RepositoryError, RepositoryOptions, Watch};

/// What both protocols share.
pub struct State {
    /// Empty until the models are loaded.
    repository: OnceLock<Arc<ModelRepository>>,
    /// Computes.
    pub inference: Arc<Inference>,
    /// Has fits of projections wait for each other.
    pub fitter: Fitter,
    /// What requests may cost.
    pub limits: Limits,
    /// Counts what is asked through the Open Inference Protocol.
    pub statistics: Statistics,
}

impl State {
    /// A state without models, which answers [`ServerError::NotReady`] until [`Self::load`] is done.
    pub fn new(inference: Inference, limits: Limits) -> Self {
        Self {
            repository: OnceLock::new(),
            inference: Arc::new(inference),
            fitter: Fitter::default(),
            limits,
            statistics: Statistics::default(),
        }
    }

    /// The same with another fitter.
    pub fn with_fitter(self, fitter: Fitter) -> Self {
        Self { fitter, ..self }
    }

    /// The models.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] while they are being loaded.
    pub fn repository(&self) -> Result<&Arc<ModelRepository>, ServerError> {
        self.repository.get().ok_or(ServerError::NotReady)
    }

    /// The bundle that answers a request: of a version of a model, or of the newest one where `version` is empty.
    ///
    /// # Errors
    /// [`ServerError::NotReady`], and those of [`ModelRepository::get`].
    pub async fn bundle(&self, model: &str, version: &str) -> Result<Arc<Bundle>, ServerError> {
        self.repository()?.get(model, version).await
    }

    /// Loads a model repository, and watches it as long as what is returned is kept, if that is asked for. Bundles that
    /// can't be served are logged and skipped.
    ///
    /// # Errors
    /// [`RepositoryError`] where there is nothing to serve.
    pub async fn load(
        &self,
        path: &Path,
        options: RepositoryOptions,
    ) -> Result<Option<Watch>, RepositoryError> {
        let repository = ModelRepository::new(path.into(), options, Arc::clone(&self.inference));
        repository.start().await?;
        let repository = Arc::new(repository);
        let watch = options
            .poll_interval
            .map(|interval| Watch::start(Arc::clone(&repository), interval));
        self.repository.get_or_init(|| repository);
        Ok(watch)
    }
}
