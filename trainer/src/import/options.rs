//! What the tensors of a network don't say.

use model::{InputShape, Preprocessing};

/// What the tensors of a network don't say.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Height and width of the input; needed for convolutional networks, unless they tell ImageNet's classes apart.
    pub input_size: Option<(usize, usize)>,
    /// How images become the network's input; ImageNet's where `None` and the network takes colour images.
    pub preprocessing: ImportPreprocessing,
    /// Names of the classes in the order of the logits. Without them a network of colour images and 1,000 classes gets those
    /// of ImageNet's classes, other networks get none.
    pub class_names: Vec<String>,
}

/// The preprocessing of an imported network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ImportPreprocessing {
    /// Resize, centre crop, ImageNet's mean and deviation.
    #[default]
    Imagenet,
    /// Stretched to the input size, values scaled to 0..1.
    UnitRange,
}

impl ImportPreprocessing {
    /// The preprocessing itself; networks that don't take colour images always use [`Self::UnitRange`].
    pub fn of(self, input: InputShape) -> Preprocessing {
        match self {
            Self::Imagenet if input.channels == 3 => Preprocessing::imagenet(input),
            Self::Imagenet | Self::UnitRange => Preprocessing::unit_range(input),
        }
    }
}
