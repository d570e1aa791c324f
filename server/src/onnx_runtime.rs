//! Finds and loads the ONNX Runtime library, and holds the process's one environment of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use thiserror::Error;

use crate::provider::{Provider, ProviderError, ProviderRequest};

/// The variable that names the library's file.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// A process has one environment, for good: ONNX Runtime allows no second one, not even after the first.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The loaded library and what it computes with.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    provider: Provider,
}

/// Why ONNX Runtime can't be used.
#[derive(Debug, Error)]
pub enum OnnxRuntimeError {
    /// The variable names a file that isn't there.
    #[error(
        "the ONNX Runtime library `{}` does not exist; run `cargo xtask setup`, which installs it, or set {VARIABLE} \
         to the library's file", .path.display()
    )]
    Missing {
        /// The variable's value.
        path: PathBuf,
    },
    /// The file is there, but is no ONNX Runtime of a version that fits.
    #[error(
        "the ONNX Runtime library `{}` can't be loaded; run `cargo xtask setup`, which installs one that fits, or set \
         {VARIABLE} to its file", .path.display()
    )]
    Load {
        /// What was tried.
        path: PathBuf,
        /// The dynamic linker's or the version check's complaint.
        source: LibraryError,
    },
    /// The variable isn't set, and the library is in none of the usual places.
    #[error(
        "the ONNX Runtime library `{name}` is neither beside the program nor where the system looks for libraries; run \
         `cargo xtask setup`, which installs it, or set {VARIABLE} to the library's file"
    )]
    NotFound {
        /// The library's file name.
        name: String,
        /// The dynamic linker's complaint.
        source: LibraryError,
    },
    /// The library refuses to start.
    #[error("ONNX Runtime can't be started")]
    Start(#[from] ort::Error),
    /// The execution provider that was asked for can't be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// What the dynamic linker or the version check says of a library.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct LibraryError(String);

impl From<ort::LoadDynamicError> for LibraryError {
    fn from(error: ort::LoadDynamicError) -> Self {
        Self(match error {
            // `ort` leaves the dynamic linker's own words out of its message.
            ort::LoadDynamicError::Dlopen { error, .. } => crate::error::chain(&error),
            error => error.to_string(),
        })
    }
}

impl OnnxRuntime {
    /// Loads the library and chooses the execution provider. `threads` compute the operators of all sessions together
    /// (none: as many as there are cores); the first call in a process decides how many.
    ///
    /// # Errors
    /// [`OnnxRuntimeError`] that says how to install the library.
    pub fn start(
        threads: Option<usize>,
        provider: impl Into<ProviderRequest>,
    ) -> Result<Self, OnnxRuntimeError> {
        let environment = environment(threads)?;
        let provider = Provider::choose(provider.into(), &environment)?;
        Ok(Self {
            environment,
            provider,
        })
    }

    /// What sessions are made in.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What computes.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }
}

fn environment(threads: Option<usize>) -> Result<Environment, OnnxRuntimeError> {
    let mut current = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = current.as_ref() {
        return Ok(environment.clone());
    }
    let library = library()?;
    // The library must be loaded before anything else of `ort` is called, which would panic without it.
    let builder = match &library {
        Library::File(path) => ort::init_from(path).map_err(|source| OnnxRuntimeError::Load {
            path: path.clone(),
            source: source.into(),
        })?,
        Library::System(name) => ort::init_from(name).map_err(|source| OnnxRuntimeError::NotFound {
            name: name.clone(),
            source: source.into(),
        })?,
    };
    // One pool for all sessions: dozens of sessions with pools of their own would compete for the cores.
    let threads = GlobalThreadPoolOptions::default()
        .with_intra_threads(threads.unwrap_or(0))?
        // Threads without work would hold a core in a loop for a while, which those who decode, read and write need.
        .with_spin_control(false)?;
    let environment = builder
        .with_name("ventral")
        .with_telemetry(false)
        .with_global_thread_pool(threads)
        .with_logger(Arc::new(log))
        .build()?;
    environment.set_log_level(LogLevel::Warning);
    tracing::info!(%library, "loaded ONNX Runtime");
    *current = Some(environment.clone());
    Ok(environment)
}

/// Where the library is.
enum Library {
    /// In this file.
    File(PathBuf),
    /// Wherever the system looks for libraries of this name.
    System(String),
}

impl std::fmt::Display for Library {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::System(name) => formatter.write_str(name),
        }
    }
}

fn library() -> Result<Library, OnnxRuntimeError> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return file(Path::new(&path)).map(Library::File);
    }
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let name = format!("{prefix}onnxruntime{suffix}");
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(&name)))
        .filter(|path| path.is_file());
    Ok(beside.map_or(Library::System(name), Library::File))
}

/// The variable's path made absolute: `ort` would look for a relative one beside the program.
fn file(path: &Path) -> Result<PathBuf, OnnxRuntimeError> {
    let missing = || OnnxRuntimeError::Missing { path: path.into() };
    let absolute = path.canonicalize().map_err(|_| missing())?;
    if absolute.is_file() {
        Ok(absolute)
    } else {
        Err(missing())
    }
}

/// Sends ONNX Runtime's log to ours.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(location, "ONNX Runtime: {message}"),
        LogLevel::Warning => tracing::warn!(location, "ONNX Runtime: {message}"),
        LogLevel::Info => tracing::debug!(location, "ONNX Runtime: {message}"),
        LogLevel::Verbose => tracing::trace!(location, "ONNX Runtime: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libonnxruntime.so");
        let message = file(&path).unwrap_err().to_string();
        assert!(message.contains("cargo xtask setup"), "{message}");
        assert!(message.contains(VARIABLE), "{message}");
        assert!(file(folder.path()).is_err(), "a folder is no library");
        std::fs::write(&path, b"").unwrap();
        assert!(file(&path).unwrap().is_absolute());
    }
}
