//! What a sweep found: tables and figures.

use std::path::{Path, PathBuf};

use model::checkpoint::PendingFile;
use thiserror::Error;

use super::figures::{Accuracy, Losses, Ratios};
use super::{Finish, Member, Outcome};
use crate::plot::{self, Figure, PlotError, PngError};
use crate::presets::Preset;
use crate::training::Evaluation;

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// One for every preset that a run was finished of, and for those whose learning rates all diverged.
    pub rows: Vec<Row>,
}

/// What was found of a preset.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The network of the paper.
    pub preset: &'static Preset,
    /// That its runs had; `None`: there are no runs, as all that were to choose one diverged.
    pub learning_rate: Option<f64>,
    /// Mean accuracy of that rate on the images that were held out, 0..1, where it was chosen.
    pub validation_top1: Option<f64>,
    /// Its runs, each with its seed.
    pub runs: Vec<(u64, Outcome)>,
}

/// Mean and unbiased standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// `None` of a single value.
    pub deviation: Option<f64>,
}

/// A report that can't be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file can't be written.
    #[error("can't write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A figure can't be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A picture can't be made.
    #[error(transparent)]
    Png(#[from] PngError),
}

impl Row {
    /// What a preset's finished runs say; nothing where there are none.
    pub(super) fn new(
        preset: &'static Preset,
        outcomes: &[(&Member, Outcome)],
        validation_top1: Option<f64>,
    ) -> Option<Self> {
        let of_preset = outcomes
            .iter()
            .filter(|(member, _)| member.preset.name == preset.name);
        let runs: Vec<_> = of_preset.collect();
        let (first, _) = runs.first()?;
        Some(Self {
            preset,
            learning_rate: Some(first.run.optimizer.learning_rate),
            validation_top1,
            runs: runs
                .iter()
                .map(|(member, outcome)| (member.run.training.seed, outcome.clone()))
                .collect(),
        })
    }

    /// Of a preset for which no learning rate could be chosen.
    pub(super) fn diverged(preset: &'static Preset) -> Self {
        Self {
            preset,
            learning_rate: None,
            validation_top1: None,
            runs: Vec::new(),
        }
    }

    /// Of the runs that didn't diverge.
    pub fn evaluations(&self) -> impl Iterator<Item = &Evaluation> {
        self.runs.iter().filter_map(|(_, outcome)| match &outcome.finish {
            Finish::Evaluated(evaluation) => Some(evaluation),
            Finish::Diverged(_) => None,
        })
    }

    /// A number of the runs' evaluations over seeds; `None` where all diverged.
    pub fn spread(&self, of: impl Fn(&Evaluation) -> f64) -> Option<Spread> {
        let values: Vec<f64> = self.evaluations().map(of).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (!values.is_empty()).then(|| Spread {
            mean,
            deviation: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
        })
    }
}

impl Report {
    /// Writes `table.csv`, `table.md`, and `accuracy`, `snr` and `loss` as SVG and PNG.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        replace(&folder.join("table.csv"), self.csv().as_bytes())?;
        replace(&folder.join("table.md"), self.markdown().as_bytes())?;
        draw(folder, "accuracy", &Accuracy(&self.rows))?;
        draw(folder, "snr", &Ratios(&self.rows))?;
        draw(folder, "loss", &Losses(&self.rows))
    }

    /// A line a run; a preset's runs share their validation accuracy and the paper's results. A preset without runs has a line
    /// without results.
    pub fn csv(&self) -> String {
        let mut table = "preset,connectivity,sleep_every,initialisation,learning_rate,validation_top1,seed,top1,top5,loss,\
                         paper_top1_percent,paper_brain_score\n"
            .to_owned();
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        for row in &self.rows {
            let preset = row.preset;
            let run = |(seed, outcome): &(u64, Outcome)| {
                let result = match &outcome.finish {
                    Finish::Evaluated(Evaluation { top1, top5, loss, .. }) => format!("{top1},{top5},{loss}"),
                    Finish::Diverged(_) => ",,".into(),
                };
                (seed.to_string(), result)
            };
            let mut runs: Vec<_> = row.runs.iter().map(run).collect();
            if runs.is_empty() {
                runs.push((String::new(), ",,".into()));
            }
            for (seed, result) in runs {
                let fields = [
                    preset.name.to_owned(),
                    preset.connectivity_name().to_owned(),
                    preset
                        .sleep_every
                        .map_or_else(String::new, |every| every.to_string()),
                    preset.initialisation_name().to_owned(),
                    row.learning_rate
                        .map_or_else(String::new, |rate| format!("{rate:e}")),
                    number(row.validation_top1),
                    seed,
                    result,
                    number(preset.top1),
                    number(preset.brain_score),
                ];
                table.push_str(&fields.join(","));
                table.push('\n');
            }
        }
        table
    }

    /// A line a preset, accuracies as mean ± standard deviation over seeds, in per cent.
    pub fn markdown(&self) -> String {
        let chosen = self.rows.iter().any(|row| row.validation_top1.is_some());
        let mut table = "| preset | connectivity | sleep every | initialisation | learning rate |".to_owned();
        let mut rule = "|---|---|---|---|---|".to_owned();
        if chosen {
            table.push_str(" held out, top-1 % |");
            rule.push_str("---|");
        }
        table.push_str(" seeds | top-1 % | top-5 % | loss | paper: ImageNet top-1 % |\n");
        rule.push_str("---|---|---|---|---|\n");
        table.push_str(&rule);
        let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"));
        for row in &self.rows {
            let preset = row.preset;
            let sleep = preset
                .sleep_every
                .map_or_else(|| "–".to_owned(), |every| every.to_string());
            table.push_str(&format!(
                "| `{}` | {} | {sleep} | {} | {} |",
                preset.name,
                preset.connectivity_name(),
                preset.initialisation_name(),
                row.learning_rate
                    .map_or_else(|| "all diverged".to_owned(), |rate| format!("{rate:e}"))
            ));
            if chosen {
                let percent = row.validation_top1.map(|top1| top1 * 100.0);
                table.push_str(&format!(" {} |", number(percent)));
            }
            let diverged = row.runs.len() - row.evaluations().count();
            let seeds = match diverged {
                0 => row.runs.len().to_string(),
                _ => format!("{}, {diverged} diverged", row.runs.len()),
            };
            table.push_str(&format!(
                " {seeds} | {} | {} | {} | {} |\n",
                spread(row.spread(|evaluation| evaluation.top1 * 100.0), 2),
                spread(row.spread(|evaluation| evaluation.top5 * 100.0), 2),
                spread(row.spread(|evaluation| evaluation.loss), 3),
                number(preset.top1)
            ));
        }
        table
    }
}

fn spread(spread: Option<Spread>, digits: usize) -> String {
    match spread {
        None => "–".into(),
        Some(Spread {
            mean,
            deviation: None,
        }) => format!("{mean:.digits$}"),
        Some(Spread {
            mean,
            deviation: Some(deviation),
        }) => format!("{mean:.digits$} ± {deviation:.digits$}"),
    }
}

fn draw(folder: &Path, name: &str, figure: &impl Figure) -> Result<(), ReportError> {
    replace(
        &folder.join(name).with_extension("svg"),
        plot::svg(figure)?.as_bytes(),
    )?;
    replace(&folder.join(name).with_extension("png"), &plot::png(figure)?)
}

pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), ReportError> {
    PendingFile::replace(path, contents).map_err(|source| ReportError::Io {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;
    use crate::sweep::Epoch;

    fn evaluation(top1: f64) -> Evaluation {
        Evaluation {
            top1,
            top5: 0.9,
            loss: 1.5,
            images: 100,
        }
    }

    fn outcome(top1: f64) -> Outcome {
        let epoch = |training_loss: f64, weight_snr| Epoch {
            training_loss,
            evaluation: evaluation(top1),
            weight_snr,
        };
        Outcome {
            finish: Finish::Evaluated(evaluation(top1)),
            epochs: vec![epoch(2.0, None), epoch(1.0, Some(0.5))],
        }
    }

    fn report() -> Report {
        let diverged = Outcome {
            finish: Finish::Diverged("the loss is NaN".into()),
            epochs: Vec::new(),
        };
        let row = |name: &str, runs: Vec<Outcome>| Row {
            preset: presets::find(name).unwrap(),
            learning_rate: Some(1e-3),
            validation_top1: None,
            runs: (1..).zip(runs).collect(),
        };
        Report {
            rows: vec![
                row("conv", vec![outcome(0.8), outcome(0.9)]),
                row("lc-sleep10-random", vec![outcome(0.5), diverged.clone()]),
                row("lc-conv1-conv", vec![diverged]),
                Row::diverged(presets::find("lc-random").unwrap()),
            ],
        }
    }

    #[test]
    fn the_table_has_means_and_deviations_beside_the_paper() {
        let table = report().markdown();
        assert!(
            table.contains(
                "| `conv` | conv | – | conv | 1e-3 | 2 | 85.00 ± 7.07 | 90.00 ± 0.00 | 1.500 ± 0.000 | 69.9 |"
            ),
            "{table}"
        );
        assert!(
            table.contains("| 10 | random | 1e-3 | 2, 1 diverged | 50.00 |"),
            "{table}"
        );
        assert!(table.contains("| 1, 1 diverged | – | – | – | 52.5 |"), "{table}");
        let csv = report().csv();
        let columns: Vec<_> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [12; 7]);
        assert!(
            table.contains("| `lc-random` | LC | – | random | all diverged | 0 | – |"),
            "{table}"
        );
        assert!(csv.ends_with("lc-random,LC,,random,,,,,,,44.9,0.383\n"), "{csv}");
    }

    #[test]
    fn everything_is_written_and_figures_are_pictures() {
        let folder = tempfile::tempdir().unwrap();
        report().write(folder.path()).unwrap();
        for name in ["accuracy", "snr", "loss"] {
            let file = |extension: &str| folder.path().join(name).with_extension(extension);
            let document = std::fs::read_to_string(file("svg")).unwrap();
            assert!(
                document.starts_with("<svg") && !document.contains("NaN"),
                "{document}"
            );
            let picture = image::open(file("png")).unwrap().into_rgb8();
            let dark = picture.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
            assert!(dark > 1000, "{name} is empty");
        }
        // Before a run is finished, too.
        Report::default().write(folder.path()).unwrap();
    }
}
