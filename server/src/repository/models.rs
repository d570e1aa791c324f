//! The models that are served, as requests and clients see them. One change is made at a time: loads would compete for
//! the same disk and the same cores.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Mutex;

use super::catalogue::{BundleState, Catalogue, Contents, Found, IndexEntry, Loaded, Version};
use super::changes::Room;
use super::discovery::{Discovery, Location, Unreadable, discover};
use super::error::RepositoryError;
use super::options::RepositoryOptions;
use crate::bundle::Bundle;
use crate::error::{InternalError, ServerError, chain};
use crate::inference::Inference;

/// The models that are served.
pub struct ModelRepository {
    folder: PathBuf,
    pub(super) options: RepositoryOptions,
    pub(super) inference: Arc<Inference>,
    catalogue: RwLock<Catalogue>,
    /// Whoever changes the catalogue holds it: the folders that couldn't be read at the last look.
    changes: Mutex<Vec<Unreadable>>,
    /// Counts the requests that ask for a bundle.
    pub(super) clock: AtomicU64,
}

impl ModelRepository {
    /// A repository of which nothing is known yet.
    pub fn new(folder: PathBuf, options: RepositoryOptions, inference: Arc<Inference>) -> Self {
        Self {
            folder,
            options,
            inference,
            catalogue: RwLock::default(),
            changes: Mutex::default(),
            clock: AtomicU64::new(0),
        }
    }

    /// Loads every bundle there is. Those that can't be served are logged and skipped.
    ///
    /// # Errors
    /// [`RepositoryError`] where there is nothing to serve, and nothing that could appear is watched for.
    pub async fn start(&self) -> Result<(), RepositoryError> {
        let mut turn = self.changes.lock().await;
        let found = self.discover(&mut turn).await?;
        for folder in &found.skipped {
            tracing::warn!(
                folder = %folder.display(),
                "skipped: a version is a whole number from 1, without leading zeros"
            );
        }
        let count = found.locations.len();
        let mut broken = self.apply(found, None, false, Room::IfFree).await.into_iter();
        if self.options.poll_interval.is_some() {
            return Ok(());
        }
        let path = || self.folder.clone();
        match broken.next() {
            _ if count == 0 => Err(RepositoryError::Empty { path: path() }),
            Some(first) if broken.len() + 1 == count => Err(RepositoryError::AllBroken {
                path: path(),
                count,
                source: Box::new(first),
            }),
            _ => Ok(()),
        }
    }

    /// The bundle that answers a request: of a version of a model, or of the newest one that can be served where
    /// `version` is empty. Where it isn't in memory, it is loaded first.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`], [`ServerError::VersionNotFound`] and [`ServerError::ModelUnavailable`].
    pub async fn get(self: &Arc<Self>, model: &str, version: &str) -> Result<Arc<Bundle>, ServerError> {
        Ok(Arc::clone(&self.loaded(model, version).await?.bundle))
    }

    /// The same, with what is known of its loading.
    ///
    /// # Errors
    /// Those of [`Self::get`].
    pub async fn loaded(self: &Arc<Self>, model: &str, version: &str) -> Result<Arc<Loaded>, ServerError> {
        let found = self.read().find(model, version)?;
        let loaded = match found {
            Found::Loaded(loaded) => loaded,
            Found::OnDemand(version) => {
                let (this, model) = (Arc::clone(self), model.to_owned());
                // A client that leaves doesn't stop what others wait for too.
                let load = tokio::spawn(async move { this.load_on_demand(&model, version).await });
                load.await.map_err(InternalError::from)??
            }
        };
        loaded.touch(&self.clock);
        Ok(loaded)
    }

    /// Looks for bundles that have appeared, were replaced or removed.
    ///
    /// # Errors
    /// [`RepositoryError`] where the repository can't be read; what is loaded stays.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), RepositoryError> {
        let this = Arc::clone(self);
        let refresh = tokio::spawn(async move {
            let mut turn = this.changes.lock().await;
            let found = this.discover(&mut turn).await?;
            this.apply(found, None, false, Room::IfFree).await;
            Ok(())
        });
        refresh.await.map_err(InternalError::from)?
    }

    /// Loads what the repository has of a model, and what has changed; what a client has unloaded too.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`], and [`ServerError::LoadFailed`] where a version can't be loaded; the others are
    /// served all the same.
    pub async fn load(self: &Arc<Self>, model: &str) -> Result<(), ServerError> {
        let (this, model) = (Arc::clone(self), model.to_owned());
        let load = tokio::spawn(async move {
            let mut turn = this.changes.lock().await;
            let found = this
                .discover(&mut turn)
                .await
                .map_err(|error| InternalError::from(Box::new(error)))?;
            if let Some(folder) = turn.iter().find(|folder| folder.model == model) {
                let reasons = vec![folder.error.clone()];
                return Err(ServerError::LoadFailed { model, reasons });
            }
            if let Some(model) = this.write().model_mut(&model) {
                model.unloaded = false;
            }
            let broken = this.apply(found, Some(&model), true, Room::Make).await;
            this.read().model(&model)?;
            if broken.is_empty() {
                return Ok(());
            }
            let reasons = broken.iter().map(|broken| {
                let (version, why) = (broken.version, chain(&broken.source));
                format!("version {version}: {why}")
            });
            Err(ServerError::LoadFailed {
                reasons: reasons.collect(),
                model,
            })
        });
        load.await.map_err(InternalError::from)?
    }

    /// Takes a model out of service until it is loaded again; running requests are not disturbed.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`].
    pub async fn unload(self: &Arc<Self>, model: &str) -> Result<(), ServerError> {
        let _turn = self.changes.lock().await;
        self.read().model(model)?;
        let mut retired = Vec::new();
        if let Some(model) = self.write().model_mut(model) {
            model.unloaded = true;
            for version in model.versions_mut() {
                let contents = std::mem::replace(&mut version.contents, Contents::Unloaded);
                version.reason = "unloaded".into();
                retired.extend(contents.loaded().cloned());
            }
        }
        tracing::info!(model, "unloaded, as asked for");
        retired.into_iter().for_each(|loaded| self.retire(loaded));
        Ok(())
    }

    /// Every version of every model, sorted, whether it can be served or not.
    pub fn index(&self) -> Vec<IndexEntry> {
        let catalogue = self.read();
        let entry = |(model, version, known): (&str, u64, &Version)| IndexEntry {
            model: model.into(),
            version,
            state: known.contents.state(),
            reason: known.reason.clone(),
            loaded: known.contents.loaded().cloned(),
        };
        catalogue.entries().map(entry).collect()
    }

    /// The part of the index that can be served.
    pub fn served(&self) -> impl Iterator<Item = IndexEntry> {
        let index = self.index().into_iter();
        index.filter(|entry| entry.state == BundleState::Ready)
    }

    /// Versions of a model that can be served, oldest first.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`].
    pub fn versions(&self, model: &str) -> Result<Vec<u64>, ServerError> {
        let catalogue = self.read();
        let versions = catalogue.model(model)?.versions();
        let ready = versions.filter(|(_, version)| version.contents.state() == BundleState::Ready);
        Ok(ready.map(|(number, _)| number).collect())
    }

    /// Whether requests for a version of a model, or for any where `version` is empty, are answered.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`] and [`ServerError::VersionNotFound`].
    pub fn is_ready(&self, model: &str, version: &str) -> Result<bool, ServerError> {
        let catalogue = self.read();
        let (_, version) = catalogue.version(model, version)?;
        Ok(version.contents.state() == BundleState::Ready)
    }

    /// A bundle that isn't in memory.
    async fn load_on_demand(&self, model: &str, version: u64) -> Result<Arc<Loaded>, ServerError> {
        let _turn = self.changes.lock().await;
        let find = || self.read().find(model, &version.to_string());
        // The turn before may have been for the same bundle.
        if let Found::Loaded(loaded) = find()? {
            return Ok(loaded);
        }
        let folder = self.read().get(model, version).map(|known| known.folder.clone());
        let location = Location {
            model: model.into(),
            version,
            folder: folder.unwrap_or_default(),
        };
        // Why it fails is logged and in the index.
        let _ = self.load_version(&location, Room::Make).await;
        match find()? {
            Found::Loaded(loaded) => Ok(loaded),
            // It wasn't loaded, and nothing has failed.
            Found::OnDemand(_) => Err(ServerError::ModelUnavailable {
                model: model.into(),
                version,
                why: "has no room in memory: try again soon",
            }),
        }
    }

    /// What the repository has. `before` is what couldn't be read the last time, of which nothing is said again.
    async fn discover(&self, before: &mut Vec<Unreadable>) -> Result<Discovery, RepositoryError> {
        let folder = self.folder.clone();
        let discovery = tokio::task::spawn_blocking(move || discover(&folder));
        let found = discovery.await.map_err(InternalError::from)??;
        for folder in found.unreadable.iter().filter(|folder| !before.contains(folder)) {
            tracing::warn!(
                model = folder.model,
                error = folder.error,
                "skipped: its folder can't be read"
            );
        }
        before.clone_from(&found.unreadable);
        Ok(found)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Catalogue> {
        self.catalogue.write().unwrap_or_else(PoisonError::into_inner)
    }
}
