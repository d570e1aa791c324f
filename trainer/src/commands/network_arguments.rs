//! Options that choose a network, for every command that makes a new one.

use model::InputShape;

use super::override_with;
use super::train::non_negative;
use crate::run::{ConnectivityChoice, DataSettings, Family, InitialisationChoice, NetworkSettings};

/// Which network to make; its input and its classes come from elsewhere.
#[derive(Debug, clap::Args)]
pub(super) struct NetworkArguments {
    /// The family of networks [default: resnet18].
    #[arg(long, value_enum, value_name = "NAME")]
    architecture: Option<Family>,
    /// Residual blocks of every stage [default: 2,2,2,2 for resnet18, 2,2 for short-resnet, 3,3,3 for resnet-cifar].
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = positive)]
    blocks: Option<Vec<usize>>,
    /// Channels of the first stage; every following one has twice as many [default: 64, 16 for resnet-cifar].
    #[arg(long, value_name = "N", value_parser = positive)]
    width: Option<usize>,
    /// Whether every position has weights of its own [default: lc].
    #[arg(long, value_enum, value_name = "NAME")]
    connectivity: Option<ConnectivityChoice>,
    /// So many first convolutions stay convolutional in a locally connected network [default: 0].
    #[arg(long, value_name = "N")]
    n_first_conv: Option<usize>,
    /// How locally connected weights are drawn [default: random].
    #[arg(long, value_enum, value_name = "NAME")]
    initialisation: Option<InitialisationChoice>,
    /// With --initialisation conv: how much noise of its own, relative to the common kernel, every position's kernel has
    /// [default: 0].
    #[arg(long, value_name = "X", value_parser = non_negative)]
    deviation: Option<f64>,
}

impl NetworkArguments {
    /// Lays what is given over settings. Another family than theirs has blocks and a width of its own.
    pub(super) fn apply(&self, settings: &mut NetworkSettings) {
        if self
            .architecture
            .is_some_and(|family| family != settings.architecture)
        {
            settings.blocks = None;
            settings.width = None;
        }
        override_with(&mut settings.architecture, self.architecture.as_ref());
        override_with(&mut settings.connectivity, self.connectivity.as_ref());
        override_with(&mut settings.n_first_conv, self.n_first_conv.as_ref());
        override_with(&mut settings.initialisation, self.initialisation.as_ref());
        override_with(&mut settings.deviation, self.deviation.as_ref());
        if self.blocks.is_some() {
            settings.blocks.clone_from(&self.blocks);
        }
        settings.width = self.width.or(settings.width);
    }
}

/// The shapes at a network's ends.
#[derive(Debug, clap::Args)]
pub(super) struct InputArguments {
    /// The network's input size in pixels, as N or HEIGHTxWIDTH [default: 224].
    #[arg(long, value_name = "SIZE", value_parser = input_size)]
    input_size: Option<(usize, usize)>,
    /// Channels of an image: 3 for colour, 1 for grey [default: 3].
    #[arg(long, value_name = "N", value_parser = positive)]
    channels: Option<usize>,
    /// Values that the readout `fc` gives.
    #[arg(long, default_value = "1000", value_name = "N", value_parser = positive)]
    pub(super) classes: usize,
}

impl InputArguments {
    /// Of one image: what is given, else what the settings say, else ImageNet's usual.
    pub(super) fn shape(&self, settings: &DataSettings) -> InputShape {
        let of_settings = settings.input_size.map(|[height, width]| (height, width));
        let (height, width) = self.input_size.or(of_settings).unwrap_or((224, 224));
        InputShape {
            channels: self.channels.or(settings.channels).unwrap_or(3),
            height,
            width,
        }
    }
}

/// Parses a whole number of at least 1.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number of at least 1".into()),
        Ok(value) => Ok(value),
    }
}

/// Parses an input size, `N` or `HEIGHTxWIDTH`: (height, width) in pixels.
pub(super) fn input_size(text: &str) -> Result<(usize, usize), String> {
    let length = |text: &str| text.parse::<usize>().ok().filter(|&length| length > 0);
    let size = match text.split_once('x') {
        Some((height, width)) => length(height).zip(length(width)),
        None => length(text).map(|length| (length, length)),
    };
    size.ok_or_else(|| "expected a number of pixels, or HEIGHTxWIDTH".into())
}
