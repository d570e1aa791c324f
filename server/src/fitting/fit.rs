//! One fit: the activations of some layers come in, then their components are found and written, layer by layer.

use std::path::Path;
use std::sync::Arc;

use model::MappedFile;

use super::FitError;
use super::components::Components;
use super::disk::{Disk, DiskSpace};
use super::file;
use super::plan::{Method, Plan};
use super::spool::Spool;

/// What is fitted.
#[derive(Clone, Debug)]
pub struct FitRequest {
    /// Names of layers, and how many values each has of an image.
    pub layers: Vec<(String, usize)>,
    /// How many components each projection has at most.
    pub components: usize,
    /// Of the random start where there is one.
    pub seed: u64,
    /// Digest of the network's checkpoint.
    pub checkpoint_digest: String,
}

/// A fit that gathers activations.
#[derive(Debug)]
pub struct Fit {
    layers: Vec<Layer>,
    components: usize,
    seed: u64,
    checkpoint_digest: String,
    /// What a decomposition may take.
    memory: usize,
    limit: usize,
}

#[derive(Debug)]
struct Layer {
    spool: Spool,
    /// For the activations.
    gathered: DiskSpace,
    /// For the projection.
    result: DiskSpace,
}

/// The principal components of a layer, as a projection's file that is removed when nobody uses it any more.
#[derive(Debug)]
pub struct Fitted {
    /// The layer's name.
    pub layer: String,
    /// The projection.
    pub file: MappedFile,
    /// What the file takes of the disk.
    pub space: DiskSpace,
    /// Images that it was fitted on.
    pub images: usize,
    /// The variance in the direction of every component.
    pub explained_variance: Vec<f64>,
    /// The variance in all directions together.
    pub total_variance: f64,
    /// Whether all eigenvalues were computed.
    pub exact: bool,
}

/// What is done with a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its components are being found.
    Decomposing,
    /// They are being written.
    Storing,
}

/// How far the layers are.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What is being done.
    pub phase: Phase,
    /// With which layer.
    pub layer: &'a str,
    /// Layers that are complete.
    pub layers_done: usize,
    /// How much of the phase is done, from 0 to 1.
    pub fraction: f64,
}

impl Fit {
    /// Nothing is gathered yet. Files are made in `folder`; `memory` is in bytes.
    ///
    /// # Errors
    /// [`FitError::File`] where they can't be.
    pub(super) fn new(
        request: FitRequest,
        folder: &Path,
        disk: &Arc<Disk>,
        memory: usize,
    ) -> Result<Self, FitError> {
        let layer = |(name, features)| {
            Ok(Layer {
                spool: Spool::new(folder, name, features)?,
                gathered: disk.space(),
                result: disk.space(),
            })
        };
        // The means of all layers are there from the first image on.
        let means = request
            .layers
            .iter()
            .map(|(_, features)| size_of::<f64>() * features);
        let means = means.fold(0, usize::saturating_add);
        Ok(Self {
            layers: request.layers.into_iter().map(layer).collect::<Result<_, _>>()?,
            components: request.components,
            seed: request.seed,
            checkpoint_digest: request.checkpoint_digest,
            memory: memory.saturating_sub(means),
            limit: memory,
        })
    }

    /// Images so far.
    pub fn images(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.spool.images())
    }

    /// Appends the activations of some images: for each layer, in their order, pieces of whole images' float32 values,
    /// little-endian. Blocks.
    ///
    /// # Errors
    /// [`FitError`] where they are no numbers, can't be kept, or couldn't be decomposed in the end.
    pub fn append<'a, P>(&mut self, activations: impl IntoIterator<Item = P>) -> Result<(), FitError>
    where
        P: IntoIterator<Item = &'a [u8]>,
    {
        for (layer, pieces) in std::iter::zip(&mut self.layers, activations) {
            let features = layer.spool.features();
            for piece in pieces {
                let row = size_of::<f32>() * features;
                let images = layer.spool.images() + piece.len() / row;
                if Plan::new(images, features, self.components, self.memory).is_none() {
                    return Err(FitError::Memory {
                        layer: layer.spool.layer().into(),
                        components: self.components,
                        images,
                        limit: self.limit,
                    });
                }
                let components = self.components.min(images).min(features);
                layer.gathered.resize(row as u64 * images as u64)?;
                layer
                    .result
                    .resize(file::size(layer.spool.layer(), features, components))?;
                layer.spool.append(piece)?;
            }
        }
        Ok(())
    }

    /// Finds and writes the components of all layers, one after the other. Blocks. `report` is told how far it is, and
    /// ends it with an error.
    ///
    /// # Errors
    /// [`FitError`].
    pub fn finish(
        self,
        report: &mut dyn FnMut(Progress<'_>) -> Result<(), FitError>,
    ) -> Result<Vec<Fitted>, FitError> {
        let mut fitted = Vec::new();
        for layer in self.layers {
            let Layer {
                spool,
                gathered,
                mut result,
            } = layer;
            let mut activations = spool.finish();
            let name = activations.layer().to_owned();
            let (images, features) = (activations.images(), activations.features());
            if images < 2 {
                return Err(FitError::TooFewImages { found: images });
            }
            let Some(plan) = Plan::new(images, features, self.components, self.memory) else {
                return Err(FitError::Memory {
                    layer: name,
                    components: self.components,
                    images,
                    limit: self.limit,
                });
            };
            let layers_done = fitted.len();
            let mut at = |phase, fraction| {
                report(Progress {
                    phase,
                    layer: &name,
                    layers_done,
                    fraction,
                })
            };
            let components = Components::find(&mut activations, &plan, self.seed, &mut |fraction| {
                at(Phase::Decomposing, fraction)
            })?;
            let file = file::write(
                &mut activations,
                &components,
                &plan,
                &self.checkpoint_digest,
                &mut |fraction| at(Phase::Storing, fraction),
            )?;
            let unreadable = FitError::file(activations.folder());
            result.resize(file::size(&name, features, components.squares.len()))?;
            let file = MappedFile::of(&file).map_err(unreadable)?;
            drop((activations, gathered));
            let degrees = (images - 1) as f64;
            fitted.push(Fitted {
                layer: name,
                file,
                space: result,
                images,
                explained_variance: components.squares.iter().map(|square| square / degrees).collect(),
                total_variance: components.total / degrees,
                exact: !matches!(plan.method, Method::Randomised { .. }),
            });
        }
        Ok(fitted)
    }
}
