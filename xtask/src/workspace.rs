//! Where things lie in the checkout.

use std::path::{Path, PathBuf};

/// The checkout's root folder. The one that cargo names when it runs this program counts: a program built before the
/// checkout was moved still finds the new place.
pub(crate) fn root() -> PathBuf {
    let manifest_folder = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_folder
        .parent()
        .map_or(manifest_folder.clone(), Path::to_path_buf)
}

/// The folder of the native libraries. `.cargo/config.toml` names it, so a target folder elsewhere doesn't change it.
pub(crate) fn native_folder() -> PathBuf {
    root().join("target").join("native")
}

/// The folder that benchmarks write to.
pub(crate) fn bench_folder() -> PathBuf {
    root().join("target").join("bench")
}
