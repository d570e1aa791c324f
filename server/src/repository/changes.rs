//! Changes of the catalogue, each made by whoever holds the repository's turn: what was found becomes what is served.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::catalogue::{Contents, Loaded, Version};
use super::discovery::{Discovery, Location, Stamp};
use super::error::{BrokenBundle, BrokenBundleReason};
use super::loading;
use super::models::ModelRepository;
use crate::bundle::Bundle;
use crate::error::chain;
use crate::telemetry::metrics::metrics;

/// What the index says of a bundle that made room for others.
const ON_DEMAND: &str = "not in memory: the next request loads it";

/// How often what a retired bundle's last requests have left behind is cleared away.
const CLEARING_INTERVAL: Duration = Duration::from_secs(1);

/// What to do where a bundle has no room beside those that are loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// The least recently used ones make room.
    Make,
    /// It is loaded once it is asked for.
    IfFree,
}

impl ModelRepository {
    /// Makes the catalogue say what was found, of one model or of all. `asked_for` loads also what couldn't be loaded
    /// before, and forgets at once what is gone. What can't be served is returned.
    pub(super) async fn apply(
        &self,
        mut found: Discovery,
        only: Option<&str>,
        asked_for: bool,
        room: Room,
    ) -> Vec<BrokenBundle> {
        found
            .locations
            .retain(|location| only.is_none_or(|model| location.model == model));
        self.forget_missing(&found, only, asked_for);
        let stamps = move || {
            let stamped = found.locations.into_iter().map(|location| {
                let stamp = Stamp::of(&location.folder);
                (location, stamp)
            });
            stamped.collect::<Vec<_>>()
        };
        // It fails only where the server is ending.
        let stamped = tokio::task::spawn_blocking(stamps).await.unwrap_or_default();
        let due = self.note(stamped, asked_for);
        let mut broken = Vec::new();
        for location in due {
            broken.extend(self.load_version(&location, room).await.err());
        }
        broken
    }

    /// Forgets versions whose folders are gone. One that is missing for the first time stays where `at_once` doesn't hold:
    /// it may be about to be replaced, which takes two renamings. What can't be read isn't gone.
    fn forget_missing(&self, found: &Discovery, only: Option<&str>, at_once: bool) {
        let locations = found.locations.iter();
        let present: HashSet<_> = locations
            .map(|location| (location.model.as_str(), location.version))
            .collect();
        let unreadable: HashSet<_> = found
            .unreadable
            .iter()
            .map(|folder| folder.model.as_str())
            .collect();
        let mut gone = Vec::new();
        for (model, version, known) in self.write().entries_mut() {
            let in_question = only.is_none_or(|only| only == model);
            if in_question && !present.contains(&(model, version)) && !unreadable.contains(model) {
                if at_once || known.missing {
                    gone.push((model.to_owned(), version));
                }
                known.missing = true;
            } else {
                known.missing = false;
            }
        }
        for (model, version) in gone {
            let removed = self.write().remove(&model, version);
            tracing::info!(model, version, "removed: its folder is gone");
            if let Some(loaded) = removed.and_then(|removed| removed.contents.loaded().cloned()) {
                self.retire(loaded);
            }
        }
    }

    /// Notes new and changed folders in the catalogue; returns those that are to be loaded.
    fn note(&self, found: Vec<(Location, Stamp)>, asked_for: bool) -> Vec<Location> {
        let mut catalogue = self.write();
        let mut due = Vec::new();
        for (location, stamp) in found {
            let unloaded = catalogue.model(&location.model).is_ok_and(|model| model.unloaded);
            let known = catalogue.get_mut(&location.model, location.version);
            match known {
                Some(known) if unloaded => known.stamp = stamp,
                Some(known) => {
                    let in_memory = known.contents.loaded().is_some();
                    if known.stamp != stamp || (asked_for && !in_memory) {
                        due.push(location);
                    }
                }
                None => {
                    let version = Version {
                        folder: location.folder.clone(),
                        stamp,
                        contents: if unloaded {
                            Contents::Unloaded
                        } else {
                            Contents::Loading
                        },
                        reason: if unloaded {
                            "unloaded".into()
                        } else {
                            String::new()
                        },
                        missing: false,
                    };
                    catalogue.insert(&location.model, location.version, version);
                    if !unloaded {
                        due.push(location);
                    }
                }
            }
        }
        due
    }

    /// Loads a bundle in the place of whatever there is of its version. Until it is ready, that is served.
    pub(super) async fn load_version(&self, location: &Location, room: Room) -> Result<(), BrokenBundle> {
        let start = Instant::now();
        let (stamp, bundle) = loading::read(location).await;
        let ready = match bundle {
            Ok(bundle) => self.prepare(bundle, room).await,
            Err(error) => Err(error),
        };
        match ready {
            Ok(Some((bundle, problem))) => {
                self.publish(location, stamp, bundle, problem, start.elapsed());
                Ok(())
            }
            Ok(None) => {
                let (model, version) = (&location.model, location.version);
                tracing::info!(
                    model,
                    version,
                    "checked, and not loaded: the memory limit is reached"
                );
                self.replace(location, stamp, Contents::OnDemand, ON_DEMAND.into());
                Ok(())
            }
            Err(source) => {
                let broken = BrokenBundle {
                    model: location.model.clone(),
                    version: location.version,
                    source,
                };
                self.report(location, stamp, &broken);
                Err(broken)
            }
        }
    }

    /// Makes room for a bundle and has it prepared; nothing, where it has to wait until it is asked for.
    async fn prepare(
        &self,
        bundle: Arc<Bundle>,
        room: Room,
    ) -> Result<Option<(Arc<Bundle>, Option<String>)>, BrokenBundleReason> {
        if !self.make_room(&bundle, room)? {
            return Ok(None);
        }
        match loading::prepare(&self.inference, &bundle, self.options.warm_up).await {
            Ok(problem) => Ok(Some((bundle, problem))),
            Err(error) => {
                self.inference.release(bundle.id);
                Err(error)
            }
        }
    }

    /// Unloads the least recently used bundles until there is room for another. Whether there is.
    fn make_room(&self, bundle: &Bundle, room: Room) -> Result<bool, BrokenBundleReason> {
        let Some(limit) = self.options.memory_limit else {
            return Ok(true);
        };
        let needed = bundle.weight_bytes();
        if needed > limit {
            return Err(BrokenBundleReason::PastMemoryLimit { found: needed, limit });
        }
        let is_own = |other: &Bundle| other.model == bundle.model && other.version == bundle.version;
        let mut others: Vec<_> = {
            let catalogue = self.read();
            let loaded = catalogue
                .entries()
                .filter_map(|(_, _, version)| version.contents.loaded().cloned());
            loaded.collect()
        };
        let replaces = others.iter().any(|loaded| is_own(&loaded.bundle));
        others.retain(|loaded| !is_own(&loaded.bundle));
        others.sort_by_key(|loaded| loaded.last_used());
        let mut taken: u64 = others.iter().map(|loaded| loaded.bundle.weight_bytes()).sum();
        for loaded in others {
            if taken <= limit - needed {
                break;
            }
            if room == Room::IfFree && !replaces {
                return Ok(false);
            }
            taken -= loaded.bundle.weight_bytes();
            self.unload_until_asked_for(loaded);
        }
        Ok(true)
    }

    fn unload_until_asked_for(&self, loaded: Arc<Loaded>) {
        let (model, version) = (&loaded.bundle.model, loaded.bundle.version);
        if let Some(known) = self.write().get_mut(model, version) {
            known.contents = Contents::OnDemand;
            known.reason = ON_DEMAND.into();
        }
        tracing::info!(model, version, "unloaded: others need its memory");
        self.retire(loaded);
    }

    /// Lets requests have a bundle from now on.
    fn publish(
        &self,
        location: &Location,
        stamp: Stamp,
        bundle: Arc<Bundle>,
        problem: Option<String>,
        load_time: Duration,
    ) {
        let (model, version) = (&bundle.model, bundle.version);
        tracing::info!(
            model,
            version,
            layers = bundle.manifest.layers.len(),
            checkpoint = bundle.manifest.checkpoint_digest,
            weight_bytes = bundle.weight_bytes(),
            seconds = load_time.as_secs_f64(),
            "loaded"
        );
        let reason = problem
            .map(|problem| format!("the warm-up failed: {problem}"))
            .unwrap_or_default();
        if !reason.is_empty() {
            tracing::warn!(model, version, "{reason}");
        }
        metrics().model_loaded(model, version, load_time, bundle.weight_bytes());
        let loaded = Loaded::new(bundle, load_time);
        loaded.touch(&self.clock);
        self.replace(location, stamp, Contents::Loaded(Arc::new(loaded)), reason);
    }

    /// Says that a bundle can't be served. One that was loaded from the same folder before goes on.
    fn report(&self, location: &Location, stamp: Stamp, broken: &BrokenBundle) {
        let (model, version) = (&location.model, location.version);
        let why = chain(&broken.source);
        let before = self
            .read()
            .get(model, version)
            .and_then(|known| known.contents.loaded().cloned());
        match before {
            // It is being replaced this very moment: the next look will tell.
            Some(loaded) if !location.folder.exists() => {
                self.replace(
                    location,
                    Stamp::default(),
                    Contents::Loaded(loaded),
                    String::new(),
                );
            }
            Some(loaded) => {
                let reason = format!("the bundle that replaced it can't be served: {why}");
                tracing::error!(
                    model,
                    version,
                    error = chain(broken),
                    "a bundle can't be served; the one before still is"
                );
                self.replace(location, stamp, Contents::Loaded(loaded), reason);
            }
            None => {
                let failing = {
                    let catalogue = self.read();
                    let known = catalogue.get(model, version).filter(|_| broken.source.may_pass());
                    known.and_then(|known| known.contents.after_failure())
                };
                match failing {
                    Some(failing) => {
                        let error = chain(broken);
                        tracing::error!(error, "a bundle couldn't be loaded; a later request tries again");
                        self.replace(location, stamp, failing, format!("it couldn't be loaded: {why}"));
                    }
                    None => {
                        tracing::error!(error = chain(broken), "a bundle can't be served and is skipped");
                        self.replace(location, stamp, Contents::Broken, why);
                    }
                }
            }
        }
    }

    /// Puts something in a version's place, unless its folder was found to be gone.
    fn replace(&self, location: &Location, stamp: Stamp, contents: Contents, reason: String) {
        let id = contents.loaded().map(|loaded| loaded.bundle.id);
        let version = Version {
            folder: location.folder.clone(),
            stamp,
            contents,
            reason,
            missing: false,
        };
        let before = {
            let mut catalogue = self.write();
            let known = catalogue.get_mut(&location.model, location.version);
            known.map(|known| std::mem::replace(known, version))
        };
        let loaded = before.and_then(|before| before.contents.loaded().cloned());
        if let Some(loaded) = loaded.filter(|loaded| Some(loaded.bundle.id) != id) {
            self.retire(loaded);
        }
    }

    /// Lets go of a bundle that no new request will get.
    pub(super) fn retire(&self, loaded: Arc<Loaded>) {
        let (model, version) = (&loaded.bundle.model, loaded.bundle.version);
        let is_replaced = {
            let catalogue = self.read();
            let known = catalogue.get(model, version);
            known.is_some_and(|known| known.contents.loaded().is_some())
        };
        if !is_replaced {
            metrics().model_unloaded(model, version);
        }
        let (id, bundle) = (loaded.bundle.id, Arc::downgrade(&loaded.bundle));
        drop(loaded);
        self.inference.release(id);
        if bundle.strong_count() == 0 {
            return;
        }
        // A request that still has the bundle may yet have a session made for it.
        let inference = Arc::clone(&self.inference);
        tokio::spawn(async move {
            while bundle.strong_count() > 0 {
                tokio::time::sleep(CLEARING_INTERVAL).await;
                inference.release(id);
            }
        });
    }
}
