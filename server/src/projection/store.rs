//! Where projections are: those uploaded are in memory, within a bound; those fitted are mapped from files without a
//! name, or kept as those that are stored, which lie beside their model.
//!
//! Names in requests are compared with those of the files that are there. Only the names of fits, which are checked,
//! become names of files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use model::MappedFile;

use super::beside;
use super::{File, Projection};
use crate::bundle::Bundle;
use crate::error::{ServerError, chain};
use crate::fitting::disk::DiskSpace;

/// Bytes of a name.
const LONGEST_NAME: usize = 128;

/// Where projections are.
#[derive(Debug)]
pub struct ProjectionStore {
    /// Bytes of memory for all that were uploaded.
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that were uploaded or fitted.
    uploaded: HashMap<Key, Uploaded>,
    /// Bytes of memory of the uploaded ones, and of those that are being uploaded.
    bytes: usize,
    /// Those that have been used, by the ids of their bundles and their names.
    mapped: HashMap<(u64, String), Mapped>,
    /// Bundles in whose folders nothing is left of servers that were killed.
    tidied: HashSet<u64>,
    warned: Warned,
}

/// What the log says already: listing projections again is no news.
#[derive(Debug, Default)]
struct Warned {
    /// Ids of bundles, names, problems.
    said: HashSet<(u64, String, String)>,
}

/// Whose an uploaded projection is: a model that was trained anew has no use for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    model: String,
    version: u64,
    checkpoint_digest: String,
    name: String,
}

#[derive(Debug)]
struct Uploaded {
    projection: Arc<Projection>,
    /// Of memory; of a fitted one, none.
    bytes: usize,
}

#[derive(Debug)]
struct Mapped {
    projection: Arc<Projection>,
    /// What the file was when it was mapped.
    written: (Option<SystemTime>, u64),
}

/// An upload that isn't complete.
#[derive(Debug)]
pub struct Upload {
    store: Arc<ProjectionStore>,
    key: Key,
    bytes: Vec<u8>,
    /// Counted in the store.
    counted: usize,
}

impl ProjectionStore {
    /// An empty store, for uploads of `limit` bytes together.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    /// A projection of a bundle by its name. Blocks where it lies beside the model.
    ///
    /// # Errors
    /// [`ServerError::ProjectionNotFound`] with those that exist, [`ServerError::Projection`] where the file is no
    /// projection.
    pub fn get(&self, bundle: &Bundle, name: &str) -> Result<Arc<Projection>, ServerError> {
        if let Some(uploaded) = self.lock().uploaded.get(&Key::new(bundle, name)) {
            return Ok(Arc::clone(&uploaded.projection));
        }
        let files = self.files(bundle);
        match files.get(name) {
            Some(file) => {
                let projection = self.map(bundle, name, file)?;
                match projection.fitted_to() {
                    Some(digest) if digest != bundle.manifest.checkpoint_digest => {
                        Err(ServerError::Projection {
                            name: name.into(),
                            problem: format!(
                                "it was fitted to another network, of the checkpoint {digest}: fit it again, or delete \
                                 it"
                            ),
                        })
                    }
                    _ => Ok(projection),
                }
            }
            None => Err(ServerError::ProjectionNotFound {
                model: bundle.model.clone(),
                version: bundle.version,
                projection: name.into(),
                available: self.names(bundle, &files),
            }),
        }
    }

    /// All projections of a bundle, sorted by name; stored ones that can't be used are logged once and left out. Blocks.
    pub fn list(&self, bundle: &Bundle) -> Vec<Arc<Projection>> {
        let files = self.files(bundle);
        let found = self
            .names(bundle, &files)
            .into_iter()
            .map(|name| (self.get(bundle, &name), name));
        let usable = found.filter_map(|(found, name)| match found {
            Ok(projection) => Some(projection),
            Err(error) => {
                let problem = chain(&error);
                if self.lock().warned.is_new(bundle.id, &name, &problem) {
                    tracing::warn!(
                        model = bundle.model,
                        version = bundle.version,
                        file = files
                            .get(&name)
                            .map(|file| tracing::field::display(file.display())),
                        error = problem,
                        "a projection can't be used and isn't listed"
                    );
                }
                None
            }
        });
        usable.collect()
    }

    /// Begins an upload. Blocks.
    ///
    /// # Errors
    /// [`ServerError::InvalidArgument`] where the name can't be one, or belongs to a projection beside the model.
    pub fn upload(self: &Arc<Self>, bundle: &Bundle, name: &str) -> Result<Upload, ServerError> {
        check_name(name)?;
        if self.files(bundle).contains_key(name) {
            return Err(stored(name));
        }
        Ok(Upload {
            store: Arc::clone(self),
            key: Key::new(bundle, name),
            bytes: Vec::new(),
            counted: 0,
        })
    }

    /// Whether a fitted projection can be called so. Blocks.
    ///
    /// # Errors
    /// [`ServerError::InvalidArgument`] where the name can't be one, or belongs to a projection beside the model that
    /// wasn't fitted.
    pub fn check_fit(&self, bundle: &Bundle, name: &str) -> Result<(), ServerError> {
        check_name(name)?;
        let replaceable = |file| {
            self.map(bundle, name, file)
                .is_ok_and(|found| found.fitted_to().is_some())
        };
        match self.files(bundle).get(name) {
            Some(file) if !replaceable(file) => Err(stored(name)),
            _ => Ok(()),
        }
    }

    /// Makes fitted projections available, all or none, in the places of those that have their names. Each is a name, a
    /// file and what that takes of the disk. They are kept beside the model if they are to be and can be. Blocks.
    ///
    /// # Errors
    /// [`ServerError::Projection`] where one is none.
    pub fn put_fitted(
        &self,
        bundle: &Bundle,
        fitted: Vec<(String, MappedFile, DiskSpace)>,
        keep: bool,
    ) -> Result<Vec<Arc<Projection>>, ServerError> {
        let parse = |(name, file, space): (String, _, _)| {
            let projection = parse(&name, File::Fitted(file, space))?;
            Ok((Key::new(bundle, &name), Arc::new(projection)))
        };
        let parsed = fitted
            .into_iter()
            .map(parse)
            .collect::<Result<Vec<_>, ServerError>>()?;
        let files = parsed
            .iter()
            .map(|(key, projection)| (key.name.as_str(), projection.file.bytes()));
        let kept = keep
            && match beside::write(bundle.current_folder(), files) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(
                        model = bundle.model,
                        version = bundle.version,
                        error = chain(&error),
                        "fitted projections last until the server ends: they can't be written beside the model"
                    );
                    false
                }
            };
        let mut state = self.lock();
        if kept {
            for (key, _) in &parsed {
                state.remove(key);
            }
            drop(state);
            return parsed
                .iter()
                .map(|(key, _)| self.get(bundle, &key.name))
                .collect();
        }
        for (key, projection) in &parsed {
            state.insert(key.clone(), Arc::clone(projection), 0);
        }
        Ok(parsed.into_iter().map(|(_, projection)| projection).collect())
    }

    /// Deletes an uploaded or fitted projection. Blocks.
    ///
    /// # Errors
    /// [`ServerError::ProjectionNotFound`], [`ServerError::InvalidArgument`] where it lies beside the model and wasn't
    /// fitted, and [`ServerError::Projection`] where its file can't be removed.
    pub fn delete(&self, bundle: &Bundle, name: &str) -> Result<(), ServerError> {
        if self.lock().remove(&Key::new(bundle, name)) {
            return Ok(());
        }
        let files = self.files(bundle);
        let Some(file) = files.get(name) else {
            self.get(bundle, name)?;
            return Ok(());
        };
        if self.map(bundle, name, file)?.fitted_to().is_none() {
            return Err(ServerError::InvalidArgument(format!(
                "the projection `{name}` is stored beside the model and can't be deleted here"
            )));
        }
        fs::remove_file(file).map_err(|error| ServerError::Projection {
            name: name.into(),
            problem: format!("the file can't be removed: {error}"),
        })?;
        self.lock().mapped.remove(&(bundle.id, name.to_owned()));
        Ok(())
    }

    /// Lets go of the projections beside a bundle, by its id; requests that use them finish.
    pub fn release(&self, bundle: u64) {
        let mut state = self.lock();
        state.mapped.retain(|(other, _), _| *other != bundle);
        state.tidied.remove(&bundle);
        state.warned.forget(bundle);
    }

    /// The files beside a bundle, by name. The first time that a bundle is asked about, its folder is tidied.
    fn files(&self, bundle: &Bundle) -> BTreeMap<String, PathBuf> {
        let folder = bundle.current_folder();
        let is_new = self.lock().tidied.insert(bundle.id);
        if is_new {
            beside::remove_leftovers(folder);
        }
        beside::files(folder)
    }

    fn map(&self, bundle: &Bundle, name: &str, path: &Path) -> Result<Arc<Projection>, ServerError> {
        let unreadable = |error| ServerError::Projection {
            name: name.into(),
            problem: format!("the file can't be read: {error}"),
        };
        let metadata = path.metadata().map_err(unreadable)?;
        let written = (metadata.modified().ok(), metadata.len());
        let key = (bundle.id, name.to_owned());
        if let Some(mapped) = self.lock().mapped.get(&key)
            && mapped.written == written
        {
            return Ok(Arc::clone(&mapped.projection));
        }
        let file = MappedFile::open(path).map_err(unreadable)?;
        let projection = Arc::new(parse(name, File::Mapped(file))?);
        let mapped = Mapped {
            projection: Arc::clone(&projection),
            written,
        };
        self.lock().mapped.insert(key, mapped);
        Ok(projection)
    }

    fn names(&self, bundle: &Bundle, files: &BTreeMap<String, PathBuf>) -> Vec<String> {
        let state = self.lock();
        let uploaded = state.uploaded.keys();
        let uploaded = uploaded
            .filter(|key| **key == Key::new(bundle, &key.name))
            .map(|key| &key.name);
        let mut names: Vec<_> = files.keys().chain(uploaded).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`ServerError::ProjectionsTooLarge`] where all uploads together would take more than they may.
    pub fn append(&mut self, bytes: &Bytes) -> Result<(), ServerError> {
        let mut state = self.store.lock();
        let (found, limit) = (state.bytes + bytes.len(), self.store.limit);
        if found > limit {
            return Err(ServerError::ProjectionsTooLarge { limit });
        }
        state.bytes = found;
        drop(state);
        self.counted += bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Checks what was uploaded and makes it available.
    ///
    /// # Errors
    /// [`ServerError::Projection`] where it is no projection, [`ServerError::LayerNotFound`] where it is of no layer of
    /// the bundle.
    pub fn finish(mut self, bundle: &Bundle) -> Result<Arc<Projection>, ServerError> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.shrink_to_fit();
        let projection = parse(&self.key.name, File::InMemory(bytes))?;
        if bundle.layer_position(projection.layer()).is_none() {
            return Err(ServerError::layer_not_found(bundle, projection.layer()));
        }
        let projection = Arc::new(projection);
        let bytes = std::mem::take(&mut self.counted);
        let mut state = self.store.lock();
        state.insert(self.key.clone(), Arc::clone(&projection), bytes);
        drop(state);
        Ok(projection)
    }
}

impl State {
    /// Whether there was one.
    fn remove(&mut self, key: &Key) -> bool {
        let removed = self.uploaded.remove(key);
        if let Some(removed) = &removed {
            self.bytes -= removed.bytes;
        }
        removed.is_some()
    }

    /// `bytes` are counted already.
    fn insert(&mut self, key: Key, projection: Arc<Projection>, bytes: usize) {
        if let Some(replaced) = self.uploaded.insert(key, Uploaded { projection, bytes }) {
            self.bytes -= replaced.bytes;
        }
    }
}

impl Warned {
    /// Whether this hasn't been said of a bundle's projection.
    fn is_new(&mut self, bundle: u64, name: &str, problem: &str) -> bool {
        self.said.insert((bundle, name.into(), problem.into()))
    }

    /// A bundle is gone.
    fn forget(&mut self, bundle: u64) {
        self.said.retain(|(other, _, _)| *other != bundle);
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.store.lock().bytes -= self.counted;
    }
}

impl Key {
    fn new(bundle: &Bundle, name: &str) -> Self {
        Self {
            model: bundle.model.clone(),
            version: bundle.version,
            checkpoint_digest: bundle.manifest.checkpoint_digest.clone(),
            name: name.into(),
        }
    }
}

/// Whether a name can be an uploaded or fitted projection's. None leads out of a folder.
fn check_name(name: &str) -> Result<(), ServerError> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return Err(ServerError::InvalidArgument(format!(
            "a projection's name has 1 to {LONGEST_NAME} letters, digits, `.`, `_` and `-`, not `{name}`"
        )));
    }
    Ok(())
}

fn stored(name: &str) -> ServerError {
    ServerError::InvalidArgument(format!(
        "the projection `{name}` is stored beside the model and can't be replaced: use another name"
    ))
}

fn parse(name: &str, file: File) -> Result<Projection, ServerError> {
    Projection::parse(name, file).map_err(|error| ServerError::Projection {
        name: name.into(),
        problem: chain(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_said_once_as_long_as_the_bundle_is_there() {
        let mut warned = Warned::default();
        assert!(warned.is_new(1, "pca.relu", "fitted to another network"));
        assert!(!warned.is_new(1, "pca.relu", "fitted to another network"));
        for (bundle, name, problem) in [
            (2, "pca.relu", "fitted to another network"),
            (1, "pca.fc", "fitted to another network"),
            (1, "pca.relu", "no safetensors file"),
        ] {
            assert!(warned.is_new(bundle, name, problem), "{bundle} {name} {problem}");
        }
        warned.forget(1);
        assert!(warned.is_new(1, "pca.relu", "fitted to another network"));
        assert!(!warned.is_new(2, "pca.relu", "fitted to another network"));
    }
}
