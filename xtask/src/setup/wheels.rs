//! Fetching wheels with pip and unpacking the parts that are needed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::python::Environment;
use super::stamp::{ONNXRUNTIME_VERSION, TORCH_VERSION};
use super::{Variant, links, metadata};
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
        let mut pip = self.python.command();
        // pip's own configuration decides where wheels come from. Its temporary files hold whole wheels, which /tmp
        // often hasn't room for.
        pip.args([
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "download",
            "--only-binary=:all:",
        ])
        .args(self.python.wheel_tags())
        .args((dependencies == Dependencies::None).then_some("--no-deps"))
        .arg("--dest")
        .arg(folder)
        .args(requirements)
        .env("TMPDIR", temporary);
        let output = watch(pip, "fetched", &[folder, temporary]).context("can't run pip")?;
        if output.status.success() {
            return Ok(());
        }
        bail!(explain(&String::from_utf8_lossy(&output.stderr), what));
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

/// Runs `command` to its end, showing meanwhile how many bytes the folders hold.
fn watch(mut command: Command, verb: &str, folders: &[&Path]) -> std::io::Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut progress = report::Progress::new();
    let start = Instant::now();
    let mut stderr = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        if let Some(stderr) = &mut stderr {
            // What could be read until the pipe broke is all there is to say.
            let _ = std::io::Read::read_to_end(stderr, &mut said);
        }
        said
    });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let bytes: u64 = folders.iter().map(|folder| size(folder)).sum();
        progress.update(&format!(
            "  {verb} {} MB, {} s",
            bytes / 1_000_000,
            start.elapsed().as_secs()
        ));
        std::thread::sleep(Duration::from_millis(200));
    };
    Ok(Output {
        status,
        stdout: Vec::new(),
        stderr: said.join().unwrap_or_default(),
    })
}

/// The bytes of all files below `folder`; what vanishes meanwhile counts as nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// One line on why pip failed.
fn explain(said: &str, what: &str) -> String {
    const OFFLINE: &[&str] = &[
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeoutError",
        "ProxyError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "Network is unreachable",
        "Connection refused",
    ];
    if OFFLINE.iter().any(|sign| said.contains(sign)) {
        return format!(
            "no network: pip can't reach its package index to fetch {what}; run this again when it can, or let \
             PIP_FIND_LINKS name a folder with the wheels"
        );
    }
    let errors = || {
        said.lines()
            .filter_map(|line| line.trim().strip_prefix("ERROR: "))
    };
    let reason = errors()
        .next()
        .or_else(|| said.trim().lines().last())
        .unwrap_or("no message");
    format!("pip can't fetch {what}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn a_missing_network_is_named_as_such() {
        let said = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
            'NewConnectionError('<pip._vendor…>: Failed to establish a new connection: [Errno -2]')': /simple/torch/\n\
            ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)\n";
        let explanation = explain(said, "PyTorch");
        assert!(
            explanation.starts_with("no network: ") && explanation.contains("to fetch PyTorch;"),
            "{explanation}"
        );
        assert!(!explanation.contains('\n'));
    }

    #[test]
    fn otherwise_pips_own_words_are_passed_on() {
        let said =
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n";
        assert_eq!(
            explain(said, "PyTorch"),
            "pip can't fetch PyTorch: Could not install packages due to an OSError: [Errno 28] No space left on device"
        );
        assert_eq!(explain("", "PyTorch"), "pip can't fetch PyTorch: no message");
    }
}
