//! Runs a bundle's graph with tract, segment by segment, so that the weights of a large network are never in memory all
//! at once.

use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use proto::onnx::ModelProto;
use tract_onnx::prelude::{
    Datum as _, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, IntoTensor, Tensor,
    TractError, TypedModel, tvec,
};

use super::segments::{SEGMENT_BYTES, divide};
use super::widening::{WideningReader, widen};
use crate::bundle::Bundle;
use crate::error::VerifyError;

/// One layer's activations.
#[derive(Clone, Debug)]
pub(super) struct Activations {
    /// Images first.
    pub(super) shape: Vec<usize>,
    /// Row-major.
    pub(super) values: Vec<f32>,
}

/// Computes the activations of the given layers for a batch of images, and gives them to `visit` one by one, in the
/// order of the bundle, which `layers` have too.
///
/// `input` has the elements of `shape`, `[N, C, H, W]`, which fits the bundle's manifest. `progress` hears of segments
/// done, of all.
///
/// # Errors
/// [`VerifyError::Inference`] in tract's words, and those of `visit`.
pub(super) fn run(
    bundle: &Bundle,
    layers: &[&str],
    (shape, input): (&[usize], &[f32]),
    progress: &mut dyn FnMut(usize, usize),
    visit: &mut dyn FnMut(&Activations) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let mut model = bundle.model().clone();
    let reader = model.graph.as_mut().map(widen).unwrap_or_default();
    let segments = divide(&model, layers, SEGMENT_BYTES);
    let mut input = Tensor::from_shape(shape, input).map_err(failed("take the images"))?;
    let count = segments.len();
    for (index, segment) in segments.into_iter().enumerate() {
        progress(index, count);
        let plan = load(&segment.model, &reader, bundle.folder(), input.shape())
            .and_then(TypedModel::into_runnable)
            .map_err(failed("load the graph"))?;
        let outputs = plan.run(tvec![input.into()]).map_err(failed("run the graph"))?;
        let layers = segment.outputs.len() - usize::from(segment.continues);
        for output in outputs.iter().take(layers) {
            visit(&activations(output).map_err(failed("give the activations"))?)?;
        }
        input = outputs
            .into_iter()
            .next_back()
            .map(IntoTensor::into_tensor)
            .unwrap_or_default();
    }
    progress(count, count);
    Ok(())
}

fn activations(output: &Tensor) -> Result<Activations, TractError> {
    Ok(Activations {
        shape: output.shape().to_vec(),
        values: output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
    })
}

/// tract gets the graph as the checked messages say it, not the file: what they don't know isn't in it.
fn load(
    model: &ModelProto,
    reader: &WideningReader,
    folder: &Path,
    shape: &[usize],
) -> Result<TypedModel, TractError> {
    let folder = folder.to_str().ok_or_else(|| {
        TractError::msg("the bundle's path is not UTF-8; move the repository to another path")
    })?;
    let mut onnx = tract_onnx::onnx();
    onnx.provider = Arc::new(reader.clone());
    let model = onnx.proto_model_for_read(&mut model.encode_to_vec().as_slice())?;
    let mut model = onnx.parse(&model, Some(folder))?.model;
    // With a fixed number of images every shape in the graph is known.
    model.set_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), shape))?;
    model.into_optimized()
}

fn failed(action: &'static str) -> impl FnOnce(TractError) -> VerifyError {
    move |error| VerifyError::Inference {
        action,
        reason: format!("{error:#}"),
    }
}
