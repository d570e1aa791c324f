//! Runs a bundle's graph with tract, segment by segment and some images at a time, so that neither the weights of a large
//! network nor the activations of many images are ever in memory all at once.

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

/// Images that are computed at a time.
pub(super) const IMAGES: usize = 16;

/// One layer's activations for some images.
#[derive(Clone, Debug)]
pub(super) struct Activations {
    /// The layer's position among those that are asked for.
    pub(super) layer: usize,
    /// The first of the images.
    pub(super) first: usize,
    /// Images first.
    pub(super) shape: Vec<usize>,
    /// Row-major.
    pub(super) values: Vec<f32>,
}

/// Computes the activations of the given layers for images, at most [`IMAGES`] at a time, and gives them to `visit` one by
/// one: layers in the order of the bundle, which `layers` have too, and of each the images in their order.
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
    let mut parts = parts(shape, input).map_err(failed("take the images"))?;
    let count = segments.len();
    let mut layer = 0;
    for (index, segment) in segments.into_iter().enumerate() {
        progress(index, count);
        let part_shape = parts[0].input.shape();
        let plan = load(&segment.model, &reader, bundle.folder(), part_shape)
            .and_then(TypedModel::into_runnable)
            .map_err(failed("load the graph"))?;
        let layers = segment.outputs.len() - usize::from(segment.continues);
        for part in &mut parts {
            let input = std::mem::take(&mut part.input);
            let outputs = plan.run(tvec![input.into()]).map_err(failed("run the graph"))?;
            for (output, layer) in outputs.iter().take(layers).zip(layer..) {
                visit(
                    &part
                        .activations(layer, output)
                        .map_err(failed("give the activations"))?,
                )?;
            }
            part.input = outputs
                .into_iter()
                .next_back()
                .map(IntoTensor::into_tensor)
                .unwrap_or_default();
        }
        layer += layers;
    }
    progress(count, count);
    Ok(())
}

/// Some images on their way through the network.
struct Part {
    first: usize,
    images: usize,
    /// What the next segment takes, of as many images in every part.
    input: Tensor,
}

/// At least one part; the last image fills up the last one, as a loaded graph takes one number of images.
fn parts(shape: &[usize], values: &[f32]) -> Result<Vec<Part>, TractError> {
    let (images, image) = (shape[0], shape[1..].iter().product::<usize>());
    let at_a_time = images.min(IMAGES);
    let mut part_shape = shape.to_vec();
    part_shape[0] = at_a_time;
    let starts = (0..images).step_by(at_a_time);
    let part = |first: usize| {
        let last = &values[(images - 1) * image..];
        let end = images.min(first + at_a_time);
        let mut input = values[first * image..end * image].to_vec();
        let images = end - first;
        input.extend(std::iter::repeat_n(last, at_a_time - images).flatten());
        let input = Tensor::from_shape(&part_shape, &input)?;
        Ok(Part { first, images, input })
    };
    starts.map(part).collect()
}

impl Part {
    fn activations(&self, layer: usize, output: &Tensor) -> Result<Activations, TractError> {
        let mut shape = output.shape().to_vec();
        let values = output.try_as_plain_ram()?.as_slice::<f32>()?;
        let values = values[..values.len() / shape[0] * self.images].to_vec();
        shape[0] = self.images;
        Ok(Activations {
            layer,
            first: self.first,
            shape,
            values,
        })
    }
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
