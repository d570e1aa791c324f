//! `[network]` of a run: which network, and how its weights are drawn.

use std::path::PathBuf;

use clap::ValueEnum;
use model::{Architecture, Connectivity, InputShape};
use serde::{Deserialize, Serialize};

use crate::network::Initialisation;

/// Which network to make; its input and its classes come from elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSettings {
    /// The family of networks.
    pub architecture: Family,
    /// Residual blocks of every stage; `None`: the family's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<usize>>,
    /// Channels of the first stage; `None`: the family's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Whether every position has weights of its own.
    pub connectivity: ConnectivityChoice,
    /// So many first convolutions stay convolutional in a locally connected network.
    pub n_first_conv: usize,
    /// How locally connected weights are drawn.
    pub initialisation: InitialisationChoice,
    /// ε of the conv initialisation: how much every position's kernel differs from the common one.
    pub deviation: f64,
    /// A checkpoint whose weights training begins with; `None`: they are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
}

/// A family of networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// torchvision's: 7x7 stem of stride 2 and max pooling, four stages of two blocks.
    #[default]
    Resnet18,
    /// The paper's short ResNet of 10 layers: resnet18 without its last two stages.
    ShortResnet,
    /// The 6n+2 family: 3x3 stem without pooling.
    ResnetCifar,
}

/// Whether neurons share their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectivityChoice {
    /// Locally connected: every position has weights of its own.
    #[default]
    Lc,
    /// Convolutional: positions share their weights.
    Conv,
}

/// How locally connected weights are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum InitialisationChoice {
    /// Every position draws its own weights.
    #[default]
    Random,
    /// One kernel is drawn and copied to every position.
    Conv,
}

impl NetworkSettings {
    /// The network, for images of a shape and a number of classes.
    pub fn architecture(&self, input: InputShape, classes: usize) -> Architecture {
        let connectivity = match self.connectivity {
            ConnectivityChoice::Lc => Connectivity::LocallyConnected {
                n_first_conv: self.n_first_conv,
            },
            ConnectivityChoice::Conv => Connectivity::Convolutional,
        };
        let mut architecture = match self.architecture {
            Family::Resnet18 => Architecture::resnet18(input, 64, classes, connectivity),
            Family::ShortResnet => Architecture::short_resnet(input, 64, classes, connectivity),
            Family::ResnetCifar => Architecture::resnet_cifar(3, input, 16, classes, connectivity),
        };
        if let Some(blocks) = &self.blocks {
            architecture.blocks.clone_from(blocks);
        }
        if let Some(width) = self.width {
            architecture.width = width;
        }
        architecture
    }

    /// How its weights are drawn.
    pub fn initialisation(&self) -> Initialisation {
        match self.initialisation {
            InitialisationChoice::Random => Initialisation::Random,
            InitialisationChoice::Conv => Initialisation::Convolutional {
                deviation: self.deviation,
            },
        }
    }

    /// The same in a word, for a checkpoint's provenance.
    pub fn initialisation_name(&self) -> String {
        match self.initialisation {
            InitialisationChoice::Random => "random".into(),
            InitialisationChoice::Conv if self.deviation == 0.0 => "conv".into(),
            InitialisationChoice::Conv => format!("conv with deviation {}", self.deviation),
        }
    }

    pub(super) fn contradictions(&self, found: &mut Vec<String>) {
        if self
            .blocks
            .as_ref()
            .is_some_and(|blocks| blocks.is_empty() || blocks.contains(&0))
        {
            found.push("`network.blocks` must be whole numbers of at least 1, one for every stage".into());
        }
        if self.width == Some(0) {
            found.push("`network.width` must be at least 1".into());
        }
        if !(self.deviation.is_finite() && self.deviation >= 0.0) {
            found.push("`network.deviation` must be at least 0".into());
        }
        if self.deviation != 0.0 && self.initialisation != InitialisationChoice::Conv {
            found.push(
                "`network.deviation` (--deviation) is for the conv initialisation (--initialisation conv)"
                    .into(),
            );
        }
        if self.n_first_conv > 0 && self.connectivity == ConnectivityChoice::Conv {
            found.push(
                "`network.n_first_conv` (--n-first-conv) is for locally connected networks (--connectivity lc)".into(),
            );
        }
    }
}
