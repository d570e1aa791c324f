//! The networks of the paper as runs: the rows of its Table 1, and its short ResNets. Each is the whole recipe at full
//! size; data set, width, size and length are changed by other settings laid over it.

mod table;

pub use table::{ALL, Table};

use serde::Serialize;
use thiserror::Error;

use crate::data::Augmentation;
use crate::run::{ConnectivityChoice, Family, InitialisationChoice, Run};

/// Training images that the paper's authors held out to choose the learning rate.
pub const HELD_OUT: usize = 10_000;

/// A network of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    /// ResNet-18, or the short ResNet.
    pub architecture: Family,
    /// Convolutional or locally connected.
    pub connectivity: ConnectivityChoice,
    /// Layers that are convolutional in a locally connected network.
    pub n_first_conv: usize,
    /// Iterations from one sleep phase to the next; `None`: there is none.
    pub sleep_every: Option<usize>,
    /// How weights are drawn.
    pub initialisation: InitialisationChoice,
    /// Of the paper; `None`: the network stays untrained.
    pub learning_rate: Option<f64>,
    /// The paper's accuracy on ImageNet in per cent.
    pub top1: Option<f64>,
    /// The paper's average Brain-Score.
    pub brain_score: Option<f64>,
    /// The paper's V1 score, where the text gives one.
    pub v1_score: Option<f64>,
}

/// No preset has this name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("there is no preset `{name}`; the nearest is `{nearest}` (`trainer presets` lists all)")]
pub struct UnknownPreset {
    /// What was asked for.
    pub name: String,
    /// The name most like it.
    pub nearest: &'static str,
}

/// A preset by its name.
///
/// # Errors
/// [`UnknownPreset`] with the name that is most like it.
pub fn find(name: &str) -> Result<&'static Preset, UnknownPreset> {
    if let Some(preset) = ALL.iter().find(|preset| preset.name == name) {
        return Ok(preset);
    }
    // A name that wasn't written to its end comes before others that are as near.
    let distance = |preset: &&Preset| {
        let other = !preset.name.starts_with(name);
        (other, strsim::damerau_levenshtein(preset.name, name))
    };
    let nearest = ALL.iter().min_by_key(distance).map_or("", |preset| preset.name);
    Err(UnknownPreset {
        name: name.into(),
        nearest,
    })
}

impl Preset {
    /// The paper's recipe: ResNet-18 for 224 pixels, AdamW with weight decay 1e-2, batches of 128, 200 epochs with the
    /// learning rate times 0.25 after 100 and 150, random resized crops and flips, mixed precision.
    pub fn run(&self) -> Run {
        let mut run = Run {
            preset: Some(self.name.into()),
            ..Run::default()
        };
        run.data.input_size = Some([224, 224]);
        run.data.augmentation = Augmentation::random_resized_crop();
        run.network.architecture = self.architecture;
        run.network.connectivity = self.connectivity;
        run.network.n_first_conv = self.n_first_conv;
        run.network.initialisation = self.initialisation;
        run.sleep.every = self.sleep_every;
        run.training.epochs = if self.is_trained() { 200 } else { 0 };
        if let Some(learning_rate) = self.learning_rate {
            run.optimizer.learning_rate = learning_rate;
        }
        run
    }

    /// Whether the paper trains it.
    pub fn is_trained(&self) -> bool {
        self.learning_rate.is_some()
    }

    /// Whether it is a row of the paper's Table 1.
    pub fn is_in_table(&self) -> bool {
        self.brain_score.is_some()
    }
}
