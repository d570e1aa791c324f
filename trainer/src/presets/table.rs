//! The list of presets, and how it is shown.

use std::fmt;

use super::Preset;
use crate::run::ConnectivityChoice::{self, Conv, Lc};
use crate::run::Family;
use crate::run::InitialisationChoice::{self, Conv as FromConv, Random};

/// The rows of the paper's Table 1 in its order, then the short ResNets. The paper gives no learning rates for the latter;
/// they have those of the ResNet-18 of the same connectivity.
pub const ALL: &[Preset] = &[
    trained("conv", Conv, (0, None), FromConv, (1e-3, 69.9, 0.426)),
    trained("lc-random", Lc, (0, None), Random, (5e-4, 44.9, 0.383)),
    trained("lc-sleep1-random", Lc, (0, Some(1)), Random, (1e-4, 62.0, 0.409)),
    trained(
        "lc-sleep10-random",
        Lc,
        (0, Some(10)),
        Random,
        (5e-4, 60.9, 0.418),
    ),
    trained(
        "lc-sleep100-random",
        Lc,
        (0, Some(100)),
        Random,
        (5e-4, 56.5, 0.424),
    ),
    trained("lc-conv", Lc, (0, None), FromConv, (1e-4, 46.1, 0.374)),
    trained("lc-sleep1-conv", Lc, (0, Some(1)), FromConv, (1e-3, 64.4, 0.433)),
    trained(
        "lc-sleep10-conv",
        Lc,
        (0, Some(10)),
        FromConv,
        (1e-3, 63.0, 0.429),
    ),
    trained(
        "lc-sleep100-conv",
        Lc,
        (0, Some(100)),
        FromConv,
        (1e-3, 58.7, 0.416),
    ),
    trained("lc-conv1-random", Lc, (1, None), Random, (1e-4, 52.5, 0.370)),
    trained("lc-conv1-conv", Lc, (1, None), FromConv, (1e-4, 52.5, 0.379)),
    untrained("conv-untrained", Conv, FromConv, (0.227, None)),
    untrained("lc-untrained", Lc, Random, (0.137, Some(0.347))),
    short("short-conv", Conv, FromConv, (1e-3, 0.511)),
    short("short-lc", Lc, Random, (5e-4, 0.544)),
];

const fn trained(
    name: &'static str,
    connectivity: ConnectivityChoice,
    (n_first_conv, sleep_every): (usize, Option<usize>),
    initialisation: InitialisationChoice,
    (learning_rate, top1, brain_score): (f64, f64, f64),
) -> Preset {
    Preset {
        name,
        architecture: Family::Resnet18,
        connectivity,
        n_first_conv,
        sleep_every,
        initialisation,
        learning_rate: Some(learning_rate),
        top1: Some(top1),
        brain_score: Some(brain_score),
        v1_score: None,
    }
}

const fn untrained(
    name: &'static str,
    connectivity: ConnectivityChoice,
    initialisation: InitialisationChoice,
    (brain_score, v1_score): (f64, Option<f64>),
) -> Preset {
    Preset {
        name,
        architecture: Family::Resnet18,
        connectivity,
        n_first_conv: 0,
        sleep_every: None,
        initialisation,
        learning_rate: None,
        top1: None,
        brain_score: Some(brain_score),
        v1_score,
    }
}

const fn short(
    name: &'static str,
    connectivity: ConnectivityChoice,
    initialisation: InitialisationChoice,
    (learning_rate, v1_score): (f64, f64),
) -> Preset {
    Preset {
        name,
        architecture: Family::ShortResnet,
        connectivity,
        n_first_conv: 0,
        sleep_every: None,
        initialisation,
        learning_rate: Some(learning_rate),
        top1: None,
        brain_score: None,
        v1_score: Some(v1_score),
    }
}

/// Presets as a table for people.
pub struct Table<'a>(pub &'a [Preset]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
        };
        writeln!(
            formatter,
            "{:<19} {:<15} {:>11} {:>14} {:>13} {:>7} {:>11} {:>6}",
            "preset",
            "connectivity",
            "sleep every",
            "initialisation",
            "learning rate",
            "top-1 %",
            "Brain-Score",
            "V1"
        )?;
        for preset in self.0 {
            let rate = preset
                .learning_rate
                .map_or_else(|| "untrained".to_owned(), |rate| format!("{rate:e}"));
            let sleep = preset
                .sleep_every
                .map_or_else(|| "–".to_owned(), |every| every.to_string());
            writeln!(
                formatter,
                "{:<19} {:<15} {sleep:>11} {:>14} {rate:>13} {:>7} {:>11} {:>6}",
                preset.name,
                preset.connectivity_name(),
                preset.initialisation_name(),
                number(preset.top1, 1),
                number(preset.brain_score, 3),
                number(preset.v1_score, 3),
            )?;
        }
        Ok(())
    }
}

impl Preset {
    /// The paper's words: `conv`, `LC`, `LC + 1st conv`.
    pub fn connectivity_name(&self) -> &'static str {
        let short = self.architecture == Family::ShortResnet;
        match (self.connectivity, self.n_first_conv) {
            (Conv, _) if short => "conv, short",
            (Conv, _) => "conv",
            (Lc, 0) if short => "LC, short",
            (Lc, 0) => "LC",
            (Lc, _) => "LC + 1st conv",
        }
    }

    /// The paper's words.
    pub fn initialisation_name(&self) -> &'static str {
        match self.initialisation {
            Random => "random",
            FromConv => "conv",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_the_thirteen_rows_of_the_paper() {
        let rows: Vec<_> = ALL.iter().filter(|preset| preset.is_in_table()).collect();
        assert_eq!(rows.len(), 13);
        assert_eq!(rows.iter().filter(|preset| preset.is_trained()).count(), 11);
        let names: BTreeSet<_> = ALL.iter().map(|preset| preset.name).collect();
        assert_eq!(names.len(), ALL.len());
        let shown = Table(ALL).to_string();
        assert_eq!(shown.lines().count(), ALL.len() + 1);
        for name in names {
            assert!(shown.contains(name), "{shown}");
        }
    }
}
