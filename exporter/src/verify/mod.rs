//! Proves a bundle: tract computes the recorded images' activations from it, which are compared with those that the
//! trainer recorded, layer by layer.

mod comparison;
mod inference;
mod report;
mod segments;
mod widening;

use std::path::{Path, PathBuf};

use model::checkpoint::{TensorView, f32_values};
use model::{Layer, Recording, WeightType};

use crate::bundle::{self, Bundle, data_digest};
use crate::error::VerifyError;
use comparison::Comparison;

pub use report::{LayerReport, Report};

/// What is compared.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The recording's file.
    pub recording: PathBuf,
    /// The largest relative error that passes: the largest absolute error of a layer over the largest magnitude in its
    /// recorded activations. `None`: that of the bundle's weights, [`default_tolerance`].
    pub tolerance: Option<f64>,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyProgress {
    /// Parts of the graph that have been computed.
    Computing {
        /// So far.
        segments: usize,
        /// Of so many.
        total: usize,
    },
    /// Bytes of the data file that have been compared with the digest.
    Checking {
        /// So far.
        bytes: u64,
        /// Of so many.
        total: u64,
    },
}

/// The tolerance for weights of a type. Rounding a weight changes it by at most 2^-24 (fp32), 2^-11 (fp16) or 2^-8 (bf16)
/// of itself, and the errors of many weights and layers add up.
pub fn default_tolerance(weights: WeightType) -> f64 {
    match weights {
        WeightType::Fp32 => 1e-4,
        WeightType::Fp16 => 1e-2,
        WeightType::Bf16 => 5e-2,
    }
}

/// Runs a bundle and compares every layer that both it and the recording have, and the data file with its digest.
///
/// # Errors
/// [`VerifyError`] where there is nothing to compare: a file that can't be used, a recording of another checkpoint,
/// shapes that differ. Activations that differ are no error but a report that hasn't passed.
pub fn verify(
    request: &VerifyRequest,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<Report, VerifyError> {
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
        let mut exported = vec![input.shape[0]];
        exported.extend(&layer.shape);
        same_shape(layer, view.shape, &exported)?;
    }

    let tolerance = request
        .tolerance
        .unwrap_or_else(|| default_tolerance(manifest.weights));
    let layers = compare(&bundle, &shared, input, tolerance, progress)?;
    let data_digest = data_digest(bundle.folder(), &mut |bytes, total| {
        progress(VerifyProgress::Checking { bytes, total });
    })?;
    let not_recorded = not_recorded.into_iter().map(|layer| layer.name.clone()).collect();
    Ok(Report::new(report::Findings {
        request,
        manifest,
        tolerance,
        layers,
        not_recorded,
        image_digests: image_digests(input),
        data_digest,
    }))
}

/// Writes a report that has passed into its bundle's metadata.
///
/// # Errors
/// [`VerifyError::Attach`]; the bundle is then as it was.
pub fn attach(report: &Report, bundle: &Path) -> Result<(), VerifyError> {
    let open = Bundle::open(bundle)?;
    bundle::attach(&open, &report.verification()).map_err(|source| VerifyError::Attach {
        path: bundle.into(),
        source,
    })
}

fn compare(
    bundle: &Bundle,
    shared: &[(&Layer, TensorView<'_>)],
    input: TensorView<'_>,
    tolerance: f64,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<Vec<LayerReport>, VerifyError> {
    let images = input.shape[0];
    tracing::info!(images, layers = shared.len(), "computing activations with tract");
    let names: Vec<_> = shared.iter().map(|(layer, _)| layer.name.as_str()).collect();
    let values: Vec<_> = f32_values(input.bytes).collect();
    let mut comparisons = vec![Comparison::default(); shared.len()];
    inference::run(
        bundle,
        &names,
        (input.shape, &values),
        &mut |segments, total| progress(VerifyProgress::Computing { segments, total }),
        &mut |activations| {
            let (layer, view) = &shared[activations.layer];
            let (found, images) = (&activations.shape, activations.shape[0]);
            let part = [&[images], &view.shape[1..]].concat();
            same_shape(layer, &part, found)?;
            let values: usize = view.shape[1..].iter().product();
            let bytes = &view.bytes[activations.first * values * size_of::<f32>()..];
            comparisons[activations.layer].add(f32_values(bytes), &activations.values);
            Ok(())
        },
    )?;
    let compared = std::iter::zip(shared, comparisons);
    Ok(compared
        .map(|((layer, view), comparison)| LayerReport::new(layer, view.shape, comparison.error(), tolerance))
        .collect())
}

/// BLAKE3 of every image.
fn image_digests(input: TensorView<'_>) -> Vec<String> {
    let bytes = input.shape[1..].iter().product::<usize>() * size_of::<f32>();
    input
        .bytes
        .chunks(bytes)
        .map(|image| blake3::hash(image).to_hex().to_string())
        .collect()
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
