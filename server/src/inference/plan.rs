//! What a request asks of a bundle, checked against what the bundle has: layers, what is made of each, and how much it
//! is in the end.

use std::ops::Range;
use std::sync::Arc;

use crate::bundle::Bundle;
use crate::error::ServerError;
use crate::inference::options::{Compression, ElementType, Options, Pooling};
use crate::inference::target::Projected;
use crate::projection::Projection;

/// What a request asks of a bundle.
#[derive(Debug)]
pub(super) struct Plan {
    /// Positions in the manifest's list, sorted, each once: what a session computes.
    pub layers: Vec<usize>,
    /// What the answer holds, in the order of the request.
    pub parts: Vec<Part>,
    /// For each of `layers`, what is projected of it, if anything is.
    pub projected: Arc<[Option<Projected>]>,
    pub data_type: ElementType,
    pub compression: Compression,
}

/// One layer of an answer.
#[derive(Debug)]
pub(super) struct Part {
    /// Position in [`Plan::layers`].
    pub position: usize,
    /// The layer's name.
    pub layer: String,
    /// What is made of its activations.
    pub reduction: Reduction,
    /// Of one image, in the answer.
    pub shape: Vec<usize>,
}

/// What is made of one image's activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    /// They stay.
    Whole,
    /// Every channel, so many values each, becomes one value.
    Pooled { mean: bool, area: usize },
    /// Some of them.
    Units(Vec<u32>),
}

impl Plan {
    /// # Errors
    /// [`ServerError::NoLayers`], [`ServerError::LayerNotFound`], and [`ServerError::InvalidArgument`] where an option
    /// doesn't fit the layers.
    pub fn new(
        bundle: &Bundle,
        names: &[String],
        options: &Options,
        projections: &[Arc<Projection>],
    ) -> Result<Self, ServerError> {
        if names.is_empty() {
            return Err(ServerError::NoLayers);
        }
        let position = |name: &String| {
            let position = bundle.layer_position(name);
            position.ok_or_else(|| ServerError::layer_not_found(bundle, name))
        };
        let positions = names.iter().map(position).collect::<Result<Vec<_>, _>>()?;
        let mut layers = positions.clone();
        layers.sort_unstable();
        layers.dedup();
        if let Some(layer) = options.units.keys().find(|layer| !names.contains(layer)) {
            return Err(invalid(format!(
                "units of layer `{layer}` are asked for, but not the layer"
            )));
        }
        if let Some(projection) = projections
            .iter()
            .find(|projection| !names.contains(&projection.layer().into()))
        {
            let (name, layer) = (projection.name(), projection.layer());
            let message = format!("the projection `{name}` is of layer `{layer}`, which isn't asked for");
            return Err(invalid(message));
        }
        // What is made of each layer, in the order of `layers`.
        let reduced = |&layer: &usize| {
            let layer = &bundle.manifest.layers[layer];
            let (reduction, shape) = reduction(&layer.name, &layer.shape, options)?;
            let projected = projected(&layer.name, reduction.clone(), &shape, projections)?;
            Ok((reduction, shape, projected))
        };
        let reduced = layers
            .iter()
            .map(reduced)
            .collect::<Result<Vec<_>, ServerError>>()?;
        let part = |layer: usize| {
            let position = layers.partition_point(|&other| other < layer);
            let (reduction, shape, projected) = &reduced[position];
            let layer = bundle.manifest.layers[layer].name.clone();
            match projected {
                None => Part {
                    position,
                    layer,
                    reduction: reduction.clone(),
                    shape: shape.clone(),
                },
                Some(projected) => Part {
                    position,
                    layer,
                    reduction: Reduction::Whole,
                    shape: vec![projected.projection.components()],
                },
            }
        };
        Ok(Self {
            parts: positions.into_iter().map(part).collect(),
            projected: reduced.into_iter().map(|(_, _, projected)| projected).collect(),
            layers,
            data_type: options.data_type,
            compression: options.compression,
        })
    }

    /// Bytes of the answer for one image, not compressed.
    pub fn bytes_per_image(&self) -> u128 {
        let values = |part: &Part| part.shape.iter().map(|&length| length as u128).product::<u128>();
        self.parts.iter().map(values).sum::<u128>() * self.data_type.bytes() as u128
    }

    /// Refuses activations that no answer could hold, before they are computed.
    pub fn check_size(&self, images: usize, limit: usize) -> Result<(), ServerError> {
        let found = self.bytes_per_image() * images as u128;
        if found > limit as u128 {
            let what = "the activations";
            return Err(ServerError::TensorTooLarge { what, found, limit });
        }
        Ok(())
    }
}

/// The projection of a layer, of which one image gives values of `shape`.
fn projected(
    layer: &str,
    reduction: Reduction,
    shape: &[usize],
    projections: &[Arc<Projection>],
) -> Result<Option<Projected>, ServerError> {
    let mut of_layer = projections
        .iter()
        .filter(|projection| projection.layer() == layer);
    let Some(projection) = of_layer.next() else {
        return Ok(None);
    };
    if let Some(other) = of_layer.next() {
        let (first, second) = (projection.name(), other.name());
        let message = format!("layer `{layer}` can't be projected by both `{first}` and `{second}`");
        return Err(invalid(message));
    }
    let (found, values) = (projection.features(), shape.iter().product::<usize>());
    if found != values {
        let name = projection.name();
        return Err(invalid(format!(
            "the projection `{name}` takes {found} values an image, layer `{layer}` has {values} after pooling or \
             choosing units"
        )));
    }
    Ok(Some(Projected {
        reduction,
        projection: Arc::clone(projection),
    }))
}

fn reduction(
    layer: &str,
    shape: &[usize],
    options: &Options,
) -> Result<(Reduction, Vec<usize>), ServerError> {
    let values: usize = shape.iter().product();
    if let Some(units) = options.units.get(layer) {
        if options.pooling != Pooling::None {
            let message = format!("layer `{layer}`: either pooling or units, not both");
            return Err(invalid(message));
        }
        if units.is_empty() {
            return Err(invalid(format!("layer `{layer}`: the list of units is empty")));
        }
        if let Some(unit) = units.iter().find(|&&unit| unit as usize >= values) {
            return Err(invalid(format!(
                "layer `{layer}` has no unit {unit}: it has {values} units, counted from 0"
            )));
        }
        return Ok((Reduction::Units(units.clone()), vec![units.len()]));
    }
    match (options.pooling, shape) {
        // Without spatial dimensions there is nothing to pool.
        (Pooling::SpatialMean | Pooling::SpatialMax, [channels, area @ ..]) if !area.is_empty() => {
            let area = area.iter().product();
            let mean = options.pooling == Pooling::SpatialMean;
            Ok((Reduction::Pooled { mean, area }, vec![*channels]))
        }
        _ => Ok((Reduction::Whole, shape.to_vec())),
    }
}

fn invalid(message: String) -> ServerError {
    ServerError::InvalidArgument(message)
}

/// The parts of `images` images with at most `length` each, and as even as can be: kernels treat a single image
/// differently, so that none must be left over.
pub(super) fn split(images: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = images.div_ceil(length.max(1));
    (0..parts).map(move |part| images * part / parts..images * (part + 1) / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even() {
        let lengths = |images, length| split(images, length).map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(lengths(65, 64), [32, 33]);
        assert_eq!(lengths(64, 64), [64]);
        assert_eq!(lengths(10, 4), [3, 3, 4]);
        assert_eq!(lengths(0, 4), [0; 0]);
        assert_eq!(
            split(10, 4).flatten().collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
    }
}
