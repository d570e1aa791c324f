//! What the program says on the terminal.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one module that writes to the terminal"
)]

use std::path::Path;

use crate::client::activations::Answer;
use crate::client::classification::Prediction;
use crate::stimuli::Stimulus;

/// A line for each stimulus, and how many predictions are right.
pub fn predictions(stimuli: &[Stimulus], predictions: &[Prediction]) {
    println!("classes over HTTP:");
    let widest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let name_width = widest(&mut stimuli.iter().map(|stimulus| stimulus.name.chars().count()));
    let class_width = widest(
        &mut predictions
            .iter()
            .map(|prediction| prediction.class_name.chars().count()),
    );
    let mut known = 0;
    let mut right = 0;
    for (stimulus, prediction) in stimuli.iter().zip(predictions) {
        let is_right = stimulus.is_of_class(&prediction.class_name);
        known += usize::from(is_right.is_some());
        right += usize::from(is_right == Some(true));
        let verdict = match is_right {
            Some(true) => "  right",
            Some(false) => "  wrong",
            None => "",
        };
        println!(
            "  {:name_width$}  {:class_width$}  {:5.1} %{verdict}",
            stimulus.name,
            prediction.class_name,
            prediction.probability * 100.0
        );
    }
    if known > 0 {
        println!("  {right} of {known} right");
    }
}

/// A line for each layer.
pub fn activations(answer: &Answer) {
    println!(
        "activations over gRPC (version {}, {}):",
        answer.version, answer.checkpoint_digest
    );
    for layer in &answer.layers {
        let [stimuli, channels, height, width] = layer.shape;
        println!(
            "  {:8}  [{stimuli}, {channels}, {height}, {width}]  {} bytes",
            layer.layer,
            size_of_val(layer.values.as_slice())
        );
    }
}

/// Where the picture is.
pub fn picture(path: &Path, width: u32, height: u32) {
    println!("picture: {} ({width} x {height})", path.display());
}

/// An error and its causes, a line each.
pub fn failure(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
}
