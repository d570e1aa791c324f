//! Which bundles a model repository has, what state each is in, and which one answers a request. Nothing here waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::discovery::{Stamp, parse_version};
use crate::bundle::Bundle;
use crate::error::ServerError;

/// How long nothing is tried after loading has failed once; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How long nothing is tried at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A bundle that is being served.
#[derive(Debug)]
pub struct Loaded {
    /// What is served.
    pub bundle: Arc<Bundle>,
    /// From reading the graph to the end of the warm-up.
    pub load_time: Duration,
    /// When a request last asked for it, on the repository's own clock.
    last_used: AtomicU64,
}

/// The state of a bundle, as the Open Inference Protocol names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleState {
    /// Requests are answered, perhaps after it was loaded.
    Ready,
    /// It is being loaded for the first time.
    Loading,
    /// Requests are refused.
    Unavailable,
}

/// A version of a model in the repository.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    /// The model's name.
    pub model: String,
    /// The version.
    pub version: u64,
    /// Whether requests are answered.
    pub state: BundleState,
    /// Why the state is what it is; empty where there is nothing to say.
    pub reason: String,
    /// What is in memory, if anything is.
    pub loaded: Option<Arc<Loaded>>,
}

/// All models.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    models: BTreeMap<String, Model>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// A client has said so; it stays until a client says otherwise.
    pub unloaded: bool,
    versions: BTreeMap<u64, Version>,
}

#[derive(Debug)]
pub(super) struct Version {
    pub folder: PathBuf,
    /// Of the files that `contents` is about.
    pub stamp: Stamp,
    pub contents: Contents,
    /// What there is to say about it.
    pub reason: String,
    /// Its folder wasn't there at the last look.
    pub missing: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Contents {
    /// Not yet: it is being loaded for the first time.
    Loading,
    Loaded(Arc<Loaded>),
    /// It made room for others, or there was none; the next request loads it.
    OnDemand,
    /// The same, but loading it has failed, perhaps only for a while: a request after `again` tries once more.
    Failing {
        /// How often in a row.
        failures: u32,
        again: Instant,
    },
    /// A client has said so.
    Unloaded,
    /// It can't be served.
    Broken,
}

/// What answers a request.
#[derive(Debug)]
pub(super) enum Found {
    Loaded(Arc<Loaded>),
    /// This version, once it is loaded.
    OnDemand(u64),
}

impl Loaded {
    /// A bundle that has just been loaded.
    pub(super) fn new(bundle: Arc<Bundle>, load_time: Duration) -> Self {
        Self {
            bundle,
            load_time,
            last_used: AtomicU64::new(0),
        }
    }

    /// Notes that a request asks for it.
    pub(super) fn touch(&self, clock: &AtomicU64) {
        let now = clock.fetch_add(1, Ordering::Relaxed) + 1;
        self.last_used.store(now, Ordering::Relaxed);
    }

    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }
}

impl BundleState {
    /// The name in the Open Inference Protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl Contents {
    pub fn state(&self) -> BundleState {
        match self {
            Self::Loaded(_) | Self::OnDemand | Self::Failing { .. } => BundleState::Ready,
            Self::Loading => BundleState::Loading,
            Self::Unloaded | Self::Broken => BundleState::Unavailable,
        }
    }

    /// What there is after loading has failed in a way that may pass; nothing where it can't be loaded on demand.
    pub fn after_failure(&self) -> Option<Self> {
        let failures = match self {
            Self::OnDemand => 1,
            Self::Failing { failures, .. } => failures.saturating_add(1),
            _ => return None,
        };
        let wait = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(16));
        Some(Self::Failing {
            failures,
            again: Instant::now() + wait.min(LONGEST_WAIT),
        })
    }

    pub fn loaded(&self) -> Option<&Arc<Loaded>> {
        match self {
            Self::Loaded(loaded) => Some(loaded),
            _ => None,
        }
    }
}

impl Catalogue {
    /// What answers a request for a version of a model, or for the newest that can be served where `version` is empty.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`], [`ServerError::VersionNotFound`] and [`ServerError::ModelUnavailable`].
    pub fn find(&self, model: &str, version: &str) -> Result<Found, ServerError> {
        let (number, version) = self.version(model, version)?;
        match &version.contents {
            Contents::Loaded(loaded) => Ok(Found::Loaded(Arc::clone(loaded))),
            Contents::OnDemand => Ok(Found::OnDemand(number)),
            Contents::Failing { again, .. } if *again <= Instant::now() => Ok(Found::OnDemand(number)),
            contents => Err(ServerError::ModelUnavailable {
                model: model.into(),
                version: number,
                why: match contents {
                    Contents::Loading => "is still being loaded: try again soon",
                    Contents::Unloaded => "was unloaded",
                    Contents::Failing { .. } => "couldn't be loaded a moment ago: try again soon",
                    _ => "can't be served; the repository's index and the server's log say why",
                },
            }),
        }
    }

    /// A version of a model; where `version` is empty, the newest that can be served, or else the newest.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`] and [`ServerError::VersionNotFound`].
    pub fn version(&self, model: &str, version: &str) -> Result<(u64, &Version), ServerError> {
        let versions = &self.model(model)?.versions;
        let found = if version.is_empty() {
            let mut newest_first = versions.iter().rev();
            let servable = newest_first.find(|(_, version)| version.contents.state() == BundleState::Ready);
            servable.or_else(|| versions.iter().next_back())
        } else {
            parse_version(version).and_then(|version| versions.get_key_value(&version))
        };
        let (number, found) = found.ok_or_else(|| ServerError::VersionNotFound {
            model: model.into(),
            version: version.into(),
            available: versions.keys().map(u64::to_string).collect(),
        })?;
        Ok((*number, found))
    }

    /// A model.
    ///
    /// # Errors
    /// [`ServerError::ModelNotFound`].
    pub fn model(&self, model: &str) -> Result<&Model, ServerError> {
        self.models.get(model).ok_or_else(|| ServerError::ModelNotFound {
            model: model.into(),
            available: self.models.keys().cloned().collect(),
        })
    }

    /// The same, to be changed.
    pub fn model_mut(&mut self, model: &str) -> Option<&mut Model> {
        self.models.get_mut(model)
    }

    /// All versions of all models, sorted.
    pub fn entries(&self) -> impl Iterator<Item = (&str, u64, &Version)> {
        self.models.iter().flat_map(|(name, model)| {
            let versions = model.versions.iter();
            versions.map(|(&number, version)| (name.as_str(), number, version))
        })
    }

    /// The same, to be changed.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = (&str, u64, &mut Version)> {
        self.models.iter_mut().flat_map(|(name, model)| {
            let versions = model.versions.iter_mut();
            versions.map(|(&number, version)| (name.as_str(), number, version))
        })
    }

    /// One version, if it is known.
    pub fn get(&self, model: &str, version: u64) -> Option<&Version> {
        self.models.get(model)?.versions.get(&version)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, model: &str, version: u64) -> Option<&mut Version> {
        self.models.get_mut(model)?.versions.get_mut(&version)
    }

    /// Adds a version, or replaces what was known of it.
    pub fn insert(&mut self, model: &str, number: u64, version: Version) {
        let model = self.models.entry(model.into()).or_default();
        model.versions.insert(number, version);
    }

    /// Forgets a version, and a model without versions; what it had is returned.
    pub fn remove(&mut self, model: &str, version: u64) -> Option<Version> {
        let known = self.models.get_mut(model)?;
        let removed = known.versions.remove(&version);
        if known.versions.is_empty() {
            self.models.remove(model);
        }
        removed
    }
}

impl Model {
    /// Its versions, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = (u64, &Version)> {
        self.versions.iter().map(|(&number, version)| (number, version))
    }

    /// The same, to be changed.
    pub fn versions_mut(&mut self) -> impl Iterator<Item = &mut Version> {
        self.versions.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(contents: Contents) -> Version {
        Version {
            folder: PathBuf::new(),
            stamp: Stamp::default(),
            contents,
            reason: String::new(),
            missing: false,
        }
    }

    #[test]
    fn the_newest_version_that_can_be_served_is_the_default() {
        let mut catalogue = Catalogue::default();
        for (number, contents) in [
            (1, Contents::OnDemand),
            (2, Contents::OnDemand),
            (10, Contents::Loading),
            (11, Contents::Broken),
        ] {
            catalogue.insert("lc", number, version(contents));
        }
        let found = |version: &str| catalogue.find("lc", version);
        assert!(matches!(found(""), Ok(Found::OnDemand(2))));
        assert!(matches!(found("1"), Ok(Found::OnDemand(1))));
        assert!(matches!(
            found("10"),
            Err(ServerError::ModelUnavailable { version: 10, .. })
        ));
        let message = found("3").unwrap_err().to_string();
        assert!(message.ends_with("it has: 1, 2, 10, 11"), "{message}");
        assert!(found("01").is_err());
        let message = catalogue.find("cl", "").unwrap_err().to_string();
        assert!(message.ends_with("there are: lc"), "{message}");
    }

    #[test]
    fn what_fails_for_a_while_is_tried_again_less_and_less_often() {
        let mut catalogue = Catalogue::default();
        assert!(Contents::Broken.after_failure().is_none());
        let mut contents = Contents::OnDemand;
        let mut waits = Vec::new();
        for _ in 0..40 {
            contents = contents.after_failure().unwrap();
            let Contents::Failing { again, .. } = contents else {
                panic!("{contents:?}");
            };
            waits.push(again - Instant::now());
        }
        assert!(waits[0] <= FIRST_WAIT && waits.iter().all(|wait| *wait <= LONGEST_WAIT));
        assert!(waits[39] > FIRST_WAIT, "{waits:?}");
        catalogue.insert("lc", 1, version(contents));
        let message = catalogue.find("lc", "").unwrap_err().to_string();
        assert!(message.contains("a moment ago"), "{message}");
        let due = Contents::Failing {
            failures: 3,
            again: Instant::now(),
        };
        catalogue.insert("lc", 1, version(due));
        assert!(matches!(catalogue.find("lc", ""), Ok(Found::OnDemand(1))));
    }

    #[test]
    fn a_model_without_a_version_that_can_be_served_says_what_its_newest_lacks() {
        let mut catalogue = Catalogue::default();
        catalogue.insert("lc", 1, version(Contents::Broken));
        catalogue.insert("lc", 2, version(Contents::Unloaded));
        let message = catalogue.find("lc", "").unwrap_err().to_string();
        assert!(message.contains("version 2 was unloaded"), "{message}");
        catalogue.remove("lc", 2);
        let message = catalogue.find("lc", "").unwrap_err().to_string();
        assert!(message.contains("version 1 can't be served"), "{message}");
        catalogue.remove("lc", 1);
        assert!(matches!(
            catalogue.find("lc", ""),
            Err(ServerError::ModelNotFound { .. })
        ));
    }
}
