//! The links under `target/native` through which the build and the programs find the libraries.
//!
//! torch's libraries look for NVIDIA's in `$ORIGIN/../../nvidia/…`, where `$ORIGIN` is the folder of the *link* that
//! they were found through: hence `native/nvidia` beside `native/libtorch/lib`. ONNX Runtime looks for its execution
//! providers' libraries beside the link too.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Variant;
use super::stamp::ONNXRUNTIME_VERSION;

const LIBTORCH: &str = "libtorch";
const ONNXRUNTIME: &str = "onnxruntime";
const NVIDIA: &str = "nvidia";
const ONNXRUNTIME_LIBRARY: &str = "libonnxruntime.so";

/// The wheel's libtorch.so stands for libtorch_cpu.so and libtorch_cuda.so; this takes its place where there is no
/// libtorch_cuda.so. Linkers read it like a library.
const LIBTORCH_FOR_CPU: &str = "/* libtorch.so without CUDA */\nINPUT(-ltorch_cpu)\n";

/// Makes all links to the folder `site`, replacing what was there.
pub(super) fn make(native: &Path, site: &Path, variant: Variant) -> Result<()> {
    replace_folder(&native.join(LIBTORCH), |folder| {
        link_libtorch(folder, site, variant)
    })?;
    replace_folder(&native.join(ONNXRUNTIME), |folder| link_onnxruntime(folder, site))?;
    let nvidia = native.join(NVIDIA);
    remove(&nvidia)?;
    if site.join(NVIDIA).is_dir() {
        link(&site.join(NVIDIA), &nvidia, native)?;
    }
    Ok(())
}

/// Whether the links lead to something; a cleaned target folder or a link removed by hand shows here.
pub(super) fn hold(native: &Path) -> bool {
    [
        native.join(LIBTORCH).join("include"),
        native.join(LIBTORCH).join("lib").join("libtorch_cpu.so"),
        native.join(LIBTORCH).join("lib").join("libc10.so"),
        native.join(ONNXRUNTIME).join(ONNXRUNTIME_LIBRARY),
    ]
    .iter()
    .all(|path| path.exists())
}

/// Removes a file, a link or a folder with all it holds; nothing there is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("can't remove {}", path.display()))
}

fn link_libtorch(folder: &Path, site: &Path, variant: Variant) -> Result<()> {
    let torch = site.join("torch");
    link(&torch.join("include"), &folder.join("include"), folder)?;
    let libraries = folder.join("lib");
    fs::create_dir(&libraries).with_context(|| format!("can't make the folder {}", libraries.display()))?;
    for library in files_of(&torch.join("lib"))? {
        link(&library, &libraries.join(name_of(&library)), &libraries)?;
    }
    if variant == Variant::Cpu {
        let path = libraries.join("libtorch.so");
        remove(&path)?;
        fs::write(&path, LIBTORCH_FOR_CPU).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn link_onnxruntime(folder: &Path, site: &Path) -> Result<()> {
    let versioned = format!("{ONNXRUNTIME_LIBRARY}.{ONNXRUNTIME_VERSION}");
    let mut found = false;
    for library in files_of(&site.join("onnxruntime").join("capi"))? {
        let is_main = name_of(&library) == versioned.as_str();
        found |= is_main;
        let name = if is_main {
            OsStr::new(ONNXRUNTIME_LIBRARY)
        } else {
            name_of(&library)
        };
        link(&library, &folder.join(name), folder)?;
    }
    if !found {
        bail!("the wheel of ONNX Runtime holds no {versioned}");
    }
    Ok(())
}

/// Fills a new folder, then puts it in the place of the old one: a build that runs meanwhile finds either.
fn replace_folder(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = folder.with_extension("partial");
    remove(&partial)?;
    fs::create_dir(&partial).with_context(|| format!("can't make the folder {}", partial.display()))?;
    fill(&partial)?;
    remove(folder)?;
    fs::rename(&partial, folder).with_context(|| format!("can't make the folder {}", folder.display()))
}

/// Makes the link `at` to `target`, worded relative to `folder`, the folder that the link lies in.
fn link(target: &Path, at: &Path, folder: &Path) -> Result<()> {
    let target = relative(target, folder);
    symlink(&target, at).with_context(|| format!("can't make the link {}", at.display()))
}

/// `target` seen from `folder`, both absolute and without links.
fn relative(target: &Path, folder: &Path) -> PathBuf {
    let shared = target
        .components()
        .zip(folder.components())
        .take_while(|(one, other)| one == other)
        .count();
    let up = folder.components().skip(shared).map(|_| OsStr::new(".."));
    let down = target
        .components()
        .skip(shared)
        .map(std::path::Component::as_os_str);
    up.chain(down).collect()
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("can't read the folder {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_worded_relative_to_their_folder() {
        assert_eq!(
            relative(
                Path::new("/a/native/site/torch/lib/libc10.so"),
                Path::new("/a/native/libtorch/lib")
            ),
            Path::new("../../site/torch/lib/libc10.so")
        );
        assert_eq!(
            relative(Path::new("/a/native/site"), Path::new("/a/native")),
            Path::new("site")
        );
    }

    fn unpacked_wheels(site: &Path) {
        let library = format!("onnxruntime/capi/libonnxruntime.so.{ONNXRUNTIME_VERSION}");
        for file in [
            "torch/include/torch/torch.h",
            "torch/lib/libtorch.so",
            "torch/lib/libtorch_cpu.so",
            "torch/lib/libc10.so",
            "nvidia/cu13/lib/libcudart.so.13",
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            &library,
        ] {
            let path = site.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
    }

    #[test]
    fn links_hold_after_the_folder_was_moved() {
        let parent = tempfile::tempdir().unwrap();
        let native = parent.path().join("native");
        unpacked_wheels(&native.join("site"));
        assert!(!hold(&native));
        make(&native, &native.join("site"), Variant::Cuda).unwrap();
        let moved = parent.path().join("moved");
        fs::rename(&native, &moved).unwrap();
        assert!(hold(&moved));
        assert!(
            moved
                .join("onnxruntime/libonnxruntime_providers_shared.so")
                .exists()
        );
        // Where torch's libraries look for NVIDIA's.
        assert!(
            moved
                .join("libtorch/lib/../../nvidia/cu13/lib/libcudart.so.13")
                .exists()
        );
        fs::remove_file(moved.join("onnxruntime/libonnxruntime.so")).unwrap();
        assert!(!hold(&moved));
    }

    #[test]
    fn without_cuda_libtorch_stands_for_its_cpu_half() {
        let native = tempfile::tempdir().unwrap();
        let site = native.path().join("site");
        unpacked_wheels(&site);
        let libtorch = native.path().join("libtorch/lib/libtorch.so");
        make(native.path(), &site, Variant::Cuda).unwrap();
        assert_eq!(fs::read_to_string(&libtorch).unwrap(), "torch/lib/libtorch.so");
        make(native.path(), &site, Variant::Cpu).unwrap();
        assert_eq!(fs::read_to_string(&libtorch).unwrap(), LIBTORCH_FOR_CPU);
    }

    #[test]
    fn a_wheel_without_the_library_is_an_error() {
        let native = tempfile::tempdir().unwrap();
        let site = native.path().join("site");
        unpacked_wheels(&site);
        fs::remove_file(site.join(format!(
            "onnxruntime/capi/libonnxruntime.so.{ONNXRUNTIME_VERSION}"
        )))
        .unwrap();
        let error = make(native.path(), &site, Variant::Cpu).unwrap_err();
        assert!(error.to_string().contains("libonnxruntime.so"), "{error}");
    }
}
