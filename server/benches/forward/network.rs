//! An exported network: its sessions, their times, and what there is to compute in them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use model::{Block, Convolution};
use server::bundle::Bundle;
use server::onnx_runtime::OnnxRuntime;
use server::session::{Batch, Session};

/// A bundle whose networks are timed.
pub struct ExportedNetwork {
    runtime: OnnxRuntime,
    bundle: Bundle,
    /// Seconds that reading and checking the bundle took.
    pub opening: f64,
    /// Of everything that is timed; the best counts.
    runs: usize,
}

/// A part of the network that ends with a layer.
pub struct StageEnd {
    /// The layer's name.
    pub last_layer: String,
    /// For one image, from the layer before which the part begins.
    pub macs: usize,
}

impl ExportedNetwork {
    /// Opens a bundle.
    pub fn open(runtime: OnnxRuntime, folder: &Path, runs: usize) -> Result<Self> {
        let start = Instant::now();
        let bundle = Bundle::load("benchmark", 1, folder)?;
        Ok(Self {
            runtime,
            bundle,
            opening: start.elapsed().as_secs_f64(),
            runs: runs.max(1),
        })
    }

    /// All layers that were exported.
    pub fn layers(&self) -> Vec<&str> {
        let layers = self.bundle.manifest.layers.iter();
        layers.map(|layer| layer.name.as_str()).collect()
    }

    /// Bytes of the weights that one forward pass reads.
    pub fn weight_bytes(&self) -> Result<usize> {
        let manifest = &self.bundle.manifest;
        let network = manifest.architecture.network()?;
        let convolutions: usize = network.convolutions().map(Convolution::weight_count).sum();
        let readout = network.readout.features * network.readout.classes;
        Ok(convolutions * manifest.weights.bytes() + readout * size_of::<f32>())
    }

    /// Multiply-adds of the whole network for one image.
    pub fn macs(&self) -> Result<usize> {
        Ok(self.stages()?.iter().map(|stage| stage.macs).sum())
    }

    /// The network's parts in order: the stem, every stage, the readout.
    pub fn stages(&self) -> Result<Vec<StageEnd>> {
        let network = self.bundle.manifest.architecture.network()?;
        let stem = StageEnd {
            last_layer: if network.max_pool.is_some() {
                "maxpool"
            } else {
                "relu"
            }
            .to_owned(),
            macs: network.stem.convolution.macs(),
        };
        let stages = network.stages.iter().map(|stage| StageEnd {
            last_layer: stage.name.clone(),
            macs: stage
                .blocks
                .iter()
                .flat_map(Block::units)
                .map(|unit| unit.convolution.macs())
                .sum(),
        });
        let readout = StageEnd {
            last_layer: "fc".to_owned(),
            macs: network.readout.features * network.readout.classes,
        };
        Ok(std::iter::once(stem).chain(stages).chain([readout]).collect())
    }

    /// A session of the graph cut to some layers, and the seconds that loading it took.
    pub fn load(&self, layers: &[&str]) -> Result<(Session, f64)> {
        let position = |layer: &&str| {
            let position = self.bundle.layer_position(layer);
            position.with_context(|| format!("the bundle has no layer `{layer}`; export all of them"))
        };
        let positions = layers.iter().map(position).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let session = Session::load(&self.runtime, &self.bundle, &positions)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((session, seconds))
    }

    /// Seconds of the best run of a batch.
    pub fn time(&self, session: &mut Session, images: usize) -> Result<f64> {
        let input = self.bundle.manifest.architecture.input;
        let shape = [images, input.channels, input.height, input.width];
        let values = stimulus(shape.iter().product());
        let mut best = f64::INFINITY;
        for run in 0..=self.runs {
            let batch = Batch {
                shape,
                values: &values,
            };
            let start = Instant::now();
            let outputs = session.run(batch)?;
            let seconds = start.elapsed().as_secs_f64();
            // The first run brings the weights into memory.
            if run > 0 {
                best = best.min(seconds);
            }
            // The deepest layer comes last; garbage in the weights would show there.
            let last = outputs.last().map_or(&[][..], |output| output.values(0..images));
            ensure!(
                !last.is_empty() && last.iter().all(|value| value.is_finite()),
                "the network's outputs aren't finite"
            );
        }
        Ok(best)
    }
}

/// Values as preprocessed pixels have them: spread over -2..2, the same in every run.
fn stimulus(count: usize) -> Vec<f32> {
    (0..count as u32)
        .map(|index| index.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 4.0 - 2.0)
        .collect()
}
