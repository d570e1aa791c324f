//! Runs a bundle's graph with tract.

use std::path::Path;

use prost::Message as _;
use proto::onnx::ModelProto;
use tract_onnx::prelude::{
    Datum as _, Framework as _, InferenceFact, InferenceModelExt as _, IntoRunnable as _, Tensor, TractError,
    TypedModel, tvec,
};

use crate::bundle::Bundle;
use crate::error::VerifyError;

/// What tract has computed for one layer.
pub(super) struct Activations {
    /// Images first.
    pub(super) shape: Vec<usize>,
    /// Row-major.
    pub(super) values: Vec<f32>,
}

/// The activations of the given layers for a batch of images; `layers` are outputs of the bundle, in its order.
///
/// `input` has the elements of `shape`, `[N, C, H, W]`, which fits the bundle's manifest.
///
/// # Errors
/// [`VerifyError::Inference`] in tract's words.
pub(super) fn run(
    bundle: &Bundle,
    layers: &[&str],
    shape: &[usize],
    input: &[f32],
) -> Result<Vec<Activations>, VerifyError> {
    let mut model = bundle.model().clone();
    if let Some(graph) = &mut model.graph {
        graph
            .output
            .retain(|output| layers.contains(&output.name.as_str()));
    }
    let plan = load(&model, bundle.folder(), shape)
        .and_then(TypedModel::into_runnable)
        .map_err(failed("load the graph"))?;
    let outputs = Tensor::from_shape(shape, input)
        .and_then(|input| plan.run(tvec![input.into()]))
        .map_err(failed("run the graph"))?;
    let activations = outputs.iter().map(|output| {
        Ok(Activations {
            shape: output.shape().to_vec(),
            values: output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec(),
        })
    });
    activations
        .collect::<Result<_, TractError>>()
        .map_err(failed("give the activations"))
}

/// tract gets the graph as the checked messages say it, not the file: what they don't know isn't in it.
fn load(model: &ModelProto, folder: &Path, shape: &[usize]) -> Result<TypedModel, TractError> {
    let folder = folder.to_str().ok_or_else(|| {
        TractError::msg("the bundle's path is not UTF-8; move the repository to another path")
    })?;
    let onnx = tract_onnx::onnx();
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
