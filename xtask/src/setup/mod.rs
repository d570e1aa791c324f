//! `cargo xtask setup`: the native libraries, taken from the Python wheels of PyTorch and ONNX Runtime; and, for the
//! tests, an environment with Python packages.
//!
//! What it makes under `target/native` (all links relative, so that the checkout can be moved):
//!
//! ```text
//! python/                        a virtual environment, for its pip
//! site-cpu/, site-cuda/          the parts of the wheels that are needed, unpacked; complete when they exist
//! libtorch/include, libtorch/lib links to torch's headers and libraries
//! nvidia                         link to NVIDIA's libraries, where torch's libraries look for them
//! onnxruntime/libonnxruntime.so  link to ONNX Runtime, its execution providers' libraries beside it
//! setup.json                     what the links stand for
//! ```

mod links;
mod metadata;
mod pip;
mod python;
mod python_tests;
mod requirements;
mod stamp;
mod watch;
mod wheels;

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{cargo, report, workspace};
pub(crate) use python::Environment;
pub(crate) use python_tests::{
    BRAIN_SCORE_PYTHON, BrainScore, CLIENT as CLIENT_FOLDER, prepare as prepare_python_tests,
    prepare_baselines, prepare_brain_score, prepare_client as prepare_client_tests, prepare_data_benchmark,
};
use stamp::Stamp;

/// Which processors the libraries compute on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    /// CPUs alone.
    Cpu,
    /// CPUs and NVIDIA GPUs.
    Cuda,
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
        })
    }
}

/// Names and versions of the libraries that a set-up installs.
pub(crate) fn library_versions() -> [(&'static str, &'static str); 2] {
    [
        ("libtorch", stamp::TORCH_VERSION),
        ("onnxruntime", stamp::ONNXRUNTIME_VERSION),
    ]
}

/// Sets up the libraries of the variant that was chosen earlier, or else those for CPUs.
pub(crate) fn set_up_as_before() -> Result<()> {
    let earlier = Stamp::read(&workspace::native_folder()).map(|stamp| stamp.variant);
    set_up(earlier.unwrap_or(Variant::Cpu))
}

/// Sets up the libraries of `variant`; does nothing where that is done already, and completes an interrupted set-up.
pub(crate) fn set_up(variant: Variant) -> Result<()> {
    let native = workspace::native_folder();
    fs::create_dir_all(&native).with_context(|| format!("can't make the folder {}", native.display()))?;
    let _lock = lock(&native)?;

    let wanted = Stamp::of(variant);
    let found = Stamp::read(&native);
    if found.as_ref() == Some(&wanted) && links::hold(&native) {
        report::line(&format!("native libraries: {wanted} (set up)"));
        return Ok(());
    }

    let start = Instant::now();
    let site = native.join(wanted.site_folder());
    if !site.is_dir() {
        install(&native, &site, variant)?;
    }
    if found.is_some_and(|found| found.variant != variant) {
        forget_linked_programs()?;
    }
    Stamp::remove(&native)?;
    links::make(&native, &site, variant)?;
    wanted.write(&native)?;
    remove_outdated_sites(&native, &wanted)?;
    report::line(&format!(
        "native libraries: {wanted}, set up in {:.0} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Two set-ups at a time would take each other's half-finished folders for leftovers.
fn lock(native: &Path) -> Result<File> {
    let path = native.join("setup.lock");
    let file = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    file.lock()
        .with_context(|| format!("can't lock {}", path.display()))?;
    Ok(file)
}

/// Downloads and unpacks everything into a folder of its own, which gets its name when it's complete.
fn install(native: &Path, site: &Path, variant: Variant) -> Result<()> {
    requirements::check()?;
    let partial = native.join("site.partial");
    links::remove(&partial)?;
    fs::create_dir_all(&partial).with_context(|| format!("can't make the folder {}", partial.display()))?;
    let python = Environment::prepare(&native.join("python"))?;
    wheels::install(&python, &partial, variant)?;
    fs::rename(&partial, site)
        .with_context(|| format!("can't rename {} to {}", partial.display(), site.display()))
}

/// Wheels' contents that an earlier version of this set-up has unpacked.
fn remove_outdated_sites(native: &Path, current: &Stamp) -> Result<()> {
    let entries =
        fs::read_dir(native).with_context(|| format!("can't read the folder {}", native.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("can't read the folder {}", native.display()))?;
        if current.replaces(&entry.file_name().to_string_lossy()) {
            links::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// torch-sys asks only once which libraries there are, when it's compiled: after a change between CPU and CUDA it's
/// compiled anew.
fn forget_linked_programs() -> Result<()> {
    report::line("torch-sys will be compiled anew for the other libraries");
    for profile in ["dev", "release"] {
        let output = cargo::command()
            .args(["clean", "--quiet", "--package", "torch-sys", "--profile", profile])
            .current_dir(workspace::root())
            .output()
            .context("can't run cargo clean")?;
        if !output.status.success() {
            bail!(
                "cargo clean --package torch-sys failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    Ok(())
}
