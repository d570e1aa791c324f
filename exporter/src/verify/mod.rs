//! Proves a bundle: tract computes the recorded images' activations from it, which are compared with those that the
//! trainer recorded, layer by layer.

mod comparison;
mod inference;
mod report;

use std::path::{Path, PathBuf};

use model::checkpoint::{TensorView, f32_values};
use model::{Layer, Recording};

use crate::bundle::Bundle;
use crate::error::VerifyError;

pub use report::{LayerReport, Report};

/// What is compared.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The recording's file.
    pub recording: PathBuf,
    /// The largest relative error that passes: the largest absolute error of a layer over the largest magnitude in its
    /// recorded activations.
    pub tolerance: f64,
}

/// Runs a bundle and compares every layer that both it and the recording have.
///
/// # Errors
/// [`VerifyError`] where there is nothing to compare: a file that can't be used, a recording of another checkpoint,
/// shapes that differ. Activations that differ are no error but a report that hasn't passed.
pub fn verify(request: &VerifyRequest) -> Result<Report, VerifyError> {
    let bundle = Bundle::open(&request.bundle)?;
    let recording = Recording::open(&request.recording)?;
    let manifest = bundle.manifest();
    if recording.checkpoint_digest() != manifest.checkpoint_digest {
        return Err(VerifyError::Digest {
            bundle: manifest.checkpoint_digest.clone(),
            recording: recording.checkpoint_digest().into(),
        });
    }
    let input = recording.input()?;
    check_input(&bundle, input.shape)?;
    let images = input.shape[0];

    let recorded = recording.layers();
    let (shared, not_recorded): (Vec<_>, Vec<_>) = manifest
        .layers
        .iter()
        .partition(|layer| recorded.contains_key(layer.name.as_str()));
    if shared.is_empty() {
        let exported = manifest.layers.iter().map(|layer| layer.name.clone()).collect();
        return Err(VerifyError::NoSharedLayer { exported });
    }
    let shared: Vec<(&Layer, TensorView<'_>)> = shared
        .into_iter()
        .filter_map(|layer| Some((layer, *recorded.get(layer.name.as_str())?)))
        .collect();
    for (layer, view) in &shared {
        let mut exported = vec![images];
        exported.extend(&layer.shape);
        same_shape(layer, view.shape, &exported)?;
    }

    tracing::info!(images, layers = shared.len(), "computing activations with tract");
    let names: Vec<_> = shared.iter().map(|(layer, _)| layer.name.as_str()).collect();
    let values: Vec<_> = f32_values(input.bytes).collect();
    let computed = inference::run(&bundle, &names, input.shape, &values)?;

    let mut layers = Vec::with_capacity(shared.len());
    for ((layer, view), activations) in shared.iter().zip(&computed) {
        same_shape(layer, view.shape, &activations.shape)?;
        let error = comparison::compare(f32_values(view.bytes), &activations.values);
        layers.push(LayerReport::new(layer, view.shape, error, request.tolerance));
    }
    let not_recorded = not_recorded.into_iter().map(|layer| layer.name.clone()).collect();
    Ok(Report::new(request, manifest, images, layers, not_recorded))
}

/// Writes a report as JSON, so that a crash leaves either the old file or the new one.
///
/// # Errors
/// [`VerifyError::Report`].
pub fn write_report(report: &Report, path: &Path) -> Result<(), VerifyError> {
    report.write(path).map_err(|source| VerifyError::Report {
        path: path.into(),
        source,
    })
}

fn check_input(bundle: &Bundle, found: &[usize]) -> Result<(), VerifyError> {
    let input = bundle.manifest().architecture.input;
    let expected = [input.channels, input.height, input.width];
    match found {
        [images, rest @ ..] if *images > 0 && rest == expected => Ok(()),
        _ => Err(VerifyError::Input {
            found: found.to_vec(),
            expected: format!(
                "[N, {}, {}, {}] with N at least 1",
                expected[0], expected[1], expected[2]
            ),
        }),
    }
}

fn same_shape(layer: &Layer, recorded: &[usize], exported: &[usize]) -> Result<(), VerifyError> {
    if recorded == exported {
        return Ok(());
    }
    Err(VerifyError::Shape {
        layer: layer.name.clone(),
        recorded: recorded.to_vec(),
        exported: exported.to_vec(),
    })
}
