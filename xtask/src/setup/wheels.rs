//! Fetching wheels with pip and unpacking the parts that are needed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::python::Environment;
use super::stamp::{ONNXRUNTIME_VERSION, TORCH_VERSION};
use super::watch::watch;
use super::{Variant, links, metadata, pip};
use crate::report;

const UNPACK_WHEELS: &str = include_str!("unpack_wheels.py");

/// What the build and the programs need of the wheels: headers, libraries, licences.
const PARTS: &[&str] = &[
    "*.dist-info/*",
    "torch/include/*",
    "torch/lib/*.so*",
    "torch.libs/*",
    "nvidia/*/lib/*.so*",
    "onnxruntime/capi/libonnxruntime*",
    "!torch/lib/libtorch_python.so",
    "!torch/lib/libshm.so",
    "!onnxruntime/capi/*tensorrt*",
];

/// What only GPUs need of these.
const ALL_BUT_CUDA_PARTS: &[&str] = &[
    "!torch/lib/*cuda*",
    "!torch/lib/*nvrtc*",
    "!torch/lib/*nvshmem*",
    "!torch/lib/libtorch_global_deps.so",
    "!nvidia/*/lib/libnvperf*",
    "!nvidia/*/lib/libcheckpoint*",
    "!nvidia/*/lib/libpcsamplingutil*",
];

/// Fetches and unpacks everything for `variant` into the folder `site`.
pub(super) fn install(python: &Environment, site: &Path, variant: Variant) -> Result<()> {
    let cuda = variant == Variant::Cuda;
    let (torch_size, onnxruntime, onnxruntime_size) = if cuda {
        ("530 MB", "onnxruntime-gpu", "260 MB")
    } else {
        ("530 MB", "onnxruntime", "25 MB")
    };

    let torch = format!("torch=={TORCH_VERSION}");
    let onnxruntime = format!("{onnxruntime}=={ONNXRUNTIME_VERSION}");
    let wheels = Wheels {
        python,
        site,
        variant,
    };
    wheels.install(
        &[torch],
        Dependencies::None,
        &format!("PyTorch {TORCH_VERSION} (about {torch_size})"),
    )?;
    wheels.install(
        &[onnxruntime],
        Dependencies::None,
        &format!("ONNX Runtime {ONNXRUNTIME_VERSION} (about {onnxruntime_size})"),
    )?;

    let metadata_path = site
        .join(format!("torch-{TORCH_VERSION}.dist-info"))
        .join("METADATA");
    let metadata = fs::read_to_string(&metadata_path)
        .with_context(|| format!("can't read {}", metadata_path.display()))?;
    let nvidia = metadata::nvidia_requirements(&metadata, cuda);
    if !nvidia.is_empty() {
        let what = if cuda {
            "CUDA's libraries (about 2 GB)"
        } else {
            "the CUDA run-time library (about 15 MB)"
        };
        wheels.install(&nvidia, Dependencies::All, what)?;
    }
    Ok(())
}

/// Whether pip fetches a wheel's own dependencies too.
#[derive(Clone, Copy, PartialEq)]
enum Dependencies {
    None,
    All,
}

struct Wheels<'a> {
    python: &'a Environment,
    site: &'a Path,
    variant: Variant,
}

impl Wheels<'_> {
    /// Fetches `requirements`, unpacks them and removes the wheels.
    fn install(&self, requirements: &[String], dependencies: Dependencies, what: &str) -> Result<()> {
        report::line(&format!("fetching {what} …"));
        let folder = self.site.join("wheels");
        let temporary = self.site.join("pip");
        for folder in [&folder, &temporary] {
            fs::create_dir_all(folder)
                .with_context(|| format!("can't make the folder {}", folder.display()))?;
        }
        self.fetch(requirements, dependencies, what, &folder, &temporary)?;
        self.unpack(what, &folder)?;
        links::remove(&folder)?;
        links::remove(&temporary)
    }

    fn fetch(
        &self,
        requirements: &[String],
        dependencies: Dependencies,
        what: &str,
        folder: &Path,
        temporary: &Path,
    ) -> Result<()> {
        let download = |pip: &mut Command| {
            pip.args(["download", "--only-binary=:all:"])
                .args(self.python.wheel_tags())
                .args((dependencies == Dependencies::None).then_some("--no-deps"))
                .arg("--dest")
                .arg(folder)
                .args(requirements);
        };
        pip::run(self.python, what, download, temporary, &[folder])
    }

    fn unpack(&self, what: &str, folder: &Path) -> Result<()> {
        let mut unpack = self.python.command();
        unpack
            .args(["-c", UNPACK_WHEELS])
            .arg(folder)
            .arg(self.site)
            .args(PARTS);
        if self.variant == Variant::Cpu {
            unpack.args(ALL_BUT_CUDA_PARTS);
        }
        let output = watch(unpack, "unpacked", &[&self.site.join("torch").join("lib")])
            .context("can't run the virtual environment's Python")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "can't unpack {what}: {}",
            said.trim().lines().last().unwrap_or("no message")
        );
    }
}
