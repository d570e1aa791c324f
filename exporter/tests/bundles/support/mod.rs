//! Random checkpoints, their recordings and their bundles in a temporary folder.

mod random;
mod reference;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exporter::export::{ExportRequest, ExportSummary, export};
use exporter::selection::LayerSelection;
use exporter::verify::{Report, VerifyRequest, verify};
use exporter::{ExportError, VerifyError};
use model::checkpoint::{self, Dtype, TensorView};
use model::network::TensorRole;
use model::{
    Architecture, Checkpoint, CheckpointHeader, Connectivity, InputShape, Network, Preprocessing, Recording,
    WeightType,
};
use prost::Message as _;
use proto::onnx::ModelProto;
use tempfile::TempDir;

use random::Random;
pub use reference::Activation;

/// How many images are recorded.
pub const IMAGES: usize = 3;

/// A checkpoint in a folder of its own.
pub struct Fixture {
    folder: TempDir,
    pub network: Network,
    digest: String,
    tensors: Tensors,
}

/// Float32 tensors of a checkpoint by name.
pub type Tensors = BTreeMap<String, Vec<f32>>;

/// A network with random weights and BatchNorm statistics.
pub fn fixture(architecture: &Architecture, seed: u64) -> Fixture {
    fixture_with(architecture, seed, |_| ())
}

/// As [`fixture`], some float32 tensors changed by the caller.
pub fn fixture_with(architecture: &Architecture, seed: u64, change: impl FnOnce(&mut Tensors)) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let network = architecture.network().unwrap();
    let mut random = Random::new(seed);
    let specs = network.tensors();
    let floats = specs.iter().filter(|spec| spec.role != TensorRole::BatchCount);
    let mut tensors: Tensors = floats
        .map(|spec| (spec.name.clone(), random.tensor(spec)))
        .collect();
    change(&mut tensors);
    let stored: Vec<_> = specs
        .into_iter()
        .map(|spec| {
            let bytes = match tensors.get(&spec.name) {
                Some(values) => (
                    Dtype::F32,
                    values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                ),
                None => (Dtype::I64, 5_i64.to_le_bytes().to_vec()),
            };
            (spec, bytes)
        })
        .collect();
    let views: Vec<_> = stored
        .iter()
        .map(|(spec, (dtype, bytes))| {
            let view = TensorView {
                dtype: *dtype,
                shape: &spec.shape,
                bytes,
            };
            (spec.name.clone(), view)
        })
        .collect();
    let header = CheckpointHeader {
        architecture: architecture.clone(),
        preprocessing: Preprocessing::unit_range(architecture.input),
        class_names: Vec::new(),
        provenance: BTreeMap::from([("seed".to_owned(), seed.into())]),
    };
    let digest = checkpoint::write(&folder.path().join("net.safetensors"), &header, &views).unwrap();
    Fixture {
        folder,
        network,
        digest,
        tensors,
    }
}

/// A small locally connected network of the CIFAR family whose first convolution is shared.
pub fn small() -> Fixture {
    let lc = Connectivity::LocallyConnected { n_first_conv: 1 };
    fixture(&Architecture::resnet_cifar(1, input(3, 8, 8), 4, 5, lc), 1)
}

pub fn input(channels: usize, height: usize, width: usize) -> InputShape {
    InputShape {
        channels,
        height,
        width,
    }
}

impl Fixture {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn checkpoint_path(&self) -> PathBuf {
        self.folder().join("net.safetensors")
    }

    pub fn repository(&self) -> PathBuf {
        self.folder().join("repository")
    }

    pub fn recording_path(&self) -> PathBuf {
        self.folder().join("net.activations.safetensors")
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.checkpoint_path()).unwrap()
    }

    pub fn request(&self, selection: LayerSelection) -> ExportRequest {
        ExportRequest {
            checkpoint: self.checkpoint_path(),
            repository: self.repository(),
            model: "net".parse().unwrap(),
            version: None,
            selection,
            weights: WeightType::Fp32,
            class_names: None,
        }
    }

    /// Exports to the next version.
    pub fn try_export(&self, selection: LayerSelection) -> Result<ExportSummary, ExportError> {
        export(&self.request(selection), &mut |_| ControlFlow::Continue(()))
    }

    pub fn export(&self, selection: LayerSelection) -> PathBuf {
        self.export_with_summary(selection).path
    }

    /// Exports to the next version, once no one else does. A program that another test starts inherits the lock of an export
    /// that has just ended, and lets go of it a moment later, when it runs.
    pub fn export_with_summary(&self, selection: LayerSelection) -> ExportSummary {
        let request = self.request(selection);
        let mut pauses = 0..6000;
        loop {
            match export(&request, &mut |_| ControlFlow::Continue(())) {
                Err(ExportError::Busy { .. }) if pauses.next().is_some() => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                exported => return exported.unwrap(),
            }
        }
    }

    /// What the formula gives for random images: `input` and every layer.
    pub fn activations(&self) -> Vec<(String, Activation)> {
        self.activations_of(IMAGES)
    }

    /// The same for another number of them.
    pub fn activations_of(&self, images: usize) -> Vec<(String, Activation)> {
        let shape = self.network.input;
        let images = Random::new(99).images(images, [shape.channels, shape.height, shape.width]);
        reference::activations(&self.network, &self.tensors, &images)
    }

    /// Records the formula's activations, all of them or some changed by the caller.
    pub fn record(&self, change: impl FnOnce(&mut Vec<(String, Activation)>)) -> PathBuf {
        self.record_as(&self.digest, change)
    }

    pub fn record_as(&self, digest: &str, change: impl FnOnce(&mut Vec<(String, Activation)>)) -> PathBuf {
        let mut activations = self.activations();
        change(&mut activations);
        let stored: Vec<_> = activations
            .into_iter()
            .map(|(name, activation)| {
                let bytes: Vec<u8> = activation
                    .values
                    .iter()
                    .flat_map(|&value| (value as f32).to_le_bytes())
                    .collect();
                (name, activation.shape, bytes)
            })
            .collect();
        let views: Vec<_> = stored
            .iter()
            .map(|(name, shape, bytes)| {
                let view = TensorView {
                    dtype: Dtype::F32,
                    shape,
                    bytes,
                };
                (name.clone(), view)
            })
            .collect();
        let path = self.recording_path();
        Recording::write(&path, digest, &views).unwrap();
        path
    }
}

pub fn verify_within(tolerance: f64, bundle: &Path, recording: &Path) -> Result<Report, VerifyError> {
    let request = VerifyRequest {
        bundle: bundle.into(),
        recording: recording.into(),
        tolerance: Some(tolerance),
    };
    verify(&request, &mut |_| ())
}

pub fn read_model(bundle: &Path) -> ModelProto {
    ModelProto::decode(fs::read(bundle.join("model.onnx")).unwrap().as_slice()).unwrap()
}

pub fn write_model(bundle: &Path, model: &ModelProto) {
    fs::write(bundle.join("model.onnx"), model.encode_to_vec()).unwrap();
}

/// Sorted names of a folder's entries.
pub fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The error with all its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
