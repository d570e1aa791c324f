//! The networks that are served, untrained: what they compute takes the same time whatever their weights are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use model::checkpoint::{self, Dtype, TensorView};
use model::network::{TensorRole, TensorSpec};
use model::{
    Architecture, CheckpointHeader, ColorMode, Connectivity, InputShape, Preprocessing, Resize, Stem,
};

use super::super::process;

/// The version that all of them have.
pub(super) const VERSION: &str = "1";

/// A network.
#[derive(Clone, Copy)]
pub(super) struct Network {
    /// The model's name in the repository.
    pub(super) name: &'static str,
    /// Of its input's sides, in pixels.
    pub(super) size: usize,
    channels: usize,
    width: usize,
    blocks: &'static [usize],
    kernel_size: usize,
    stem: Stem,
    classes: usize,
    connectivity: Connectivity,
}

/// ResNet-18's.
const STEM: Stem = Stem {
    kernel_size: 7,
    stride: 2,
    max_pool: true,
};

/// A locally connected network for Fashion-MNIST, whose forward pass takes less time than most servers' handling of a
/// request.
pub(super) const SMALL: Network = Network {
    name: "small",
    size: 28,
    channels: 1,
    width: 8,
    blocks: &[1],
    kernel_size: 3,
    // ResNet's windows of 7x7, many for so small an image, would make the forward pass longer by half.
    stem: Stem {
        kernel_size: 3,
        ..STEM
    },
    classes: 10,
    connectivity: Connectivity::LocallyConnected { n_first_conv: 0 },
};

/// The ordinary ResNet-18 of 224 pixels.
pub(super) const RESNET18: Network = Network {
    name: "resnet18",
    size: 224,
    channels: 3,
    width: 64,
    blocks: &[2, 2, 2, 2],
    kernel_size: 3,
    stem: STEM,
    classes: 1000,
    connectivity: Connectivity::Convolutional,
};

/// A network whose forward pass takes some milliseconds, far more than everything else about a request.
pub(super) const MIDDLE: Network = Network {
    name: "middle",
    size: 112,
    channels: 1,
    width: 32,
    ..RESNET18
};

/// A network that computes little for its large activations: 1x1 convolutions of 16 channels, which ONNX Runtime's kernels
/// take at a time.
pub(super) const WIDE: Network = Network {
    name: "wide",
    size: 112,
    channels: 1,
    width: 16,
    blocks: &[1],
    kernel_size: 1,
    stem: Stem {
        kernel_size: 1,
        stride: 1,
        max_pool: false,
    },
    classes: 10,
    connectivity: Connectivity::Convolutional,
};

impl Network {
    /// Exports the network to a repository; the bundle's folder.
    pub(super) fn export(&self, exporter: &Path, folder: &Path, repository: &Path) -> Result<PathBuf> {
        let checkpoint = folder.join(format!("{}.safetensors", self.name));
        self.write_checkpoint(&checkpoint)?;
        process::run(
            Command::new(exporter)
                .arg("export")
                .arg(&checkpoint)
                .arg("--repository")
                .arg(repository)
                .args(["--model", self.name, "--model-version", VERSION]),
        )?;
        Ok(repository.join(self.name).join(VERSION))
    }

    /// `C,H,W` of its input.
    pub(super) fn shape(&self) -> String {
        format!("{},{size},{size}", self.channels, size = self.size)
    }

    fn architecture(&self) -> Architecture {
        Architecture {
            input: InputShape {
                channels: self.channels,
                height: self.size,
                width: self.size,
            },
            stem: self.stem,
            width: self.width,
            blocks: self.blocks.to_vec(),
            kernel_size: self.kernel_size,
            classes: self.classes,
            connectivity: self.connectivity,
        }
    }

    fn write_checkpoint(&self, path: &Path) -> Result<()> {
        let architecture = self.architecture();
        let network = architecture.network().context("there is no such network")?;
        let specifications = network.tensors();
        let values: Vec<_> = specifications.iter().map(values).collect();
        let tensors: Vec<_> = std::iter::zip(&specifications, &values)
            .map(|(specification, (dtype, bytes))| {
                let view = TensorView {
                    dtype: *dtype,
                    shape: &specification.shape,
                    bytes,
                };
                (specification.name.clone(), view)
            })
            .collect();
        let header = CheckpointHeader {
            preprocessing: Preprocessing {
                color: if self.channels == 1 {
                    ColorMode::Grayscale
                } else {
                    ColorMode::Rgb
                },
                resize: Resize::Stretch,
                mean: vec![0.0; self.channels],
                std: vec![1.0; self.channels],
            },
            architecture,
            class_names: Vec::new(),
            provenance: BTreeMap::new(),
        };
        checkpoint::write(path, &header, &tensors)
            .with_context(|| format!("can't write {}", path.display()))?;
        Ok(())
    }
}

/// Small numbers of both signs for weights, none that BatchNorm would divide by.
fn values(specification: &TensorSpec) -> (Dtype, Vec<u8>) {
    if specification.role == TensorRole::BatchCount {
        return (Dtype::I64, 1_i64.to_le_bytes().to_vec());
    }
    let count = specification.shape.iter().product();
    let is_weight = specification.role == TensorRole::Parameter && specification.shape.len() > 1;
    // Steps of a prime number through a range that it doesn't divide.
    let value = |index: usize| match index.wrapping_mul(7919) % 2001 {
        step if is_weight => (step as f32 - 1000.0) / 5000.0,
        _ => 1.0,
    };
    (
        Dtype::F32,
        (0..count).flat_map(|index| value(index).to_le_bytes()).collect(),
    )
}
