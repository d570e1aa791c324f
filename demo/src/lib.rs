//! A client of Ventral's server, written as a neuroscientist's own program would be: it reads stimuli from a folder, asks
//! the server for activations over gRPC and for classes over HTTP, prints what came and draws it.
//!
//! It knows the protocols alone: nothing here depends on how networks are trained, exported or computed.

pub mod client;
pub mod drawing;
pub mod report;
pub mod stimuli;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use client::{activations, classification};
use drawing::figure::{self, Column, Figure, Row};
use stimuli::Stimulus;

/// Rows of the picture; further stimuli are classified, but not drawn.
const ROWS: usize = 8;

/// What to ask, where, and where the picture goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// URL of the server's HTTP port.
    pub http: String,
    /// URL of the server's gRPC port.
    pub grpc: String,
    /// Name of the model.
    pub model: String,
    /// Folder of PNG files.
    pub stimuli: PathBuf,
    /// Names of layers; their activations must have the shape `[N, C, H, W]` or `[N, C]`.
    pub layers: Vec<String>,
    /// The picture, a PNG file.
    pub output: PathBuf,
}

/// Asks, prints and draws.
pub fn run(options: &Options) -> Result<()> {
    let stimuli = stimuli::read_folder(&options.stimuli)?;
    let predictions = classification::classify(&options.http, &options.model, &stimuli)
        .with_context(|| format!("can't classify the stimuli at {}", options.http))?;
    report::predictions(&stimuli, &predictions);

    let answer = activations::get(&options.grpc, &options.model, &options.layers, &stimuli)
        .with_context(|| format!("can't get activations from {}", options.grpc))?;
    report::activations(&answer);

    let figure = figure(options, &stimuli, &predictions, &answer.layers);
    let picture = figure::draw(&figure);
    picture
        .save_with_format(&options.output, image::ImageFormat::Png)
        .with_context(|| format!("can't write {}", options.output.display()))?;
    report::picture(&options.output, picture.width(), picture.height());
    Ok(())
}

fn figure<'a>(
    options: &Options,
    stimuli: &'a [Stimulus],
    predictions: &'a [classification::Prediction],
    layers: &'a [activations::Activations],
) -> Figure<'a> {
    let rows = stimuli
        .iter()
        .zip(predictions)
        .take(ROWS)
        .map(|(stimulus, prediction)| Row {
            image: &stimulus.image,
            predicted: &prediction.class_name,
            probability: prediction.probability,
            right: stimulus.is_of_class(&prediction.class_name),
        })
        .collect();
    let columns = layers
        .iter()
        .map(|activations| Column::of_most_varying_channels(activations, ROWS))
        .collect();
    Figure {
        heading: format!("Activations of {}", options.model),
        rows,
        columns,
    }
}
