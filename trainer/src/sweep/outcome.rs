//! What became of a run: its accuracy and its course, kept in its folder once it is finished.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use model::checkpoint::PendingFile;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::training::Evaluation;

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub finish: Finish,
    /// What its epochs were like.
    pub epochs: Vec<Epoch>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// With this accuracy: on the images that were held out, or on the test images.
    Evaluated(Evaluation),
    /// Its loss became infinite or not a number.
    Diverged(String),
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean of its steps' losses.
    pub training_loss: f64,
    /// On the images that the run was evaluated with.
    pub evaluation: Evaluation,
    /// Median over layers of the signal-to-noise ratio of weights; `None` where there is none, or all kernels are equal.
    pub weight_snr: Option<f64>,
}

impl From<Evaluation> for Finish {
    /// An evaluation whose loss isn't finite, which no file could hold, is that of a run that diverged.
    fn from(evaluation: Evaluation) -> Self {
        if evaluation.loss.is_finite() {
            Self::Evaluated(evaluation)
        } else {
            Self::Diverged(format!(
                "the loss on the images is {} in the end",
                evaluation.loss
            ))
        }
    }
}

impl Finish {
    /// Fraction of images that are classified rightly; `None` for a run that diverged.
    pub fn top1(&self) -> Option<f64> {
        match self {
            Self::Evaluated(evaluation) => Some(evaluation.top1),
            Self::Diverged(_) => None,
        }
    }
}

impl Outcome {
    /// The one that a file holds; `None` where there is no such file.
    ///
    /// # Errors
    /// The operating system's, or that the file holds none.
    pub fn read(path: &Path) -> std::io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it whole; returns it as [`Outcome::read`] does.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&self, path: &Path) -> std::io::Result<Self> {
        let text = serde_json::to_vec_pretty(self)?;
        PendingFile::replace(path, &text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// The epochs that a run's log tells of. Steps that were made again after the run was killed count once.
///
/// # Errors
/// The operating system's.
pub fn epochs(log: &Path) -> std::io::Result<Vec<Epoch>> {
    let mut losses: BTreeMap<u64, BTreeMap<u64, f64>> = BTreeMap::new();
    let mut ends: BTreeMap<u64, (Evaluation, Option<f64>)> = BTreeMap::new();
    for line in BufReader::new(File::open(log)?).lines() {
        let Ok(record) = serde_json::from_str::<Value>(&line?) else {
            // Killed while it wrote this line: the step is told again.
            continue;
        };
        let number = |key: &str| record.get(key).and_then(Value::as_u64);
        let Some(epoch) = number("epoch") else { continue };
        match record.get("event").and_then(Value::as_str) {
            Some("step") => {
                if let (Some(step), Some(loss)) = (number("step"), record.get("loss").and_then(Value::as_f64))
                {
                    losses.entry(epoch).or_default().insert(step, loss);
                }
            }
            Some("epoch") => {
                let test = record.get("test").cloned().unwrap_or_default();
                // A loss that isn't finite is written as null: such an epoch isn't drawn.
                if let Ok(evaluation) = serde_json::from_value(test) {
                    ends.insert(epoch, (evaluation, median_snr(&record)));
                }
            }
            _ => {}
        }
    }
    let mean = |epoch: &u64| {
        let losses = losses.get(epoch)?;
        Some(losses.values().sum::<f64>() / losses.len().max(1) as f64)
    };
    let epochs = ends.iter().filter_map(|(epoch, (evaluation, weight_snr))| {
        Some(Epoch {
            training_loss: mean(epoch)?,
            evaluation: *evaluation,
            weight_snr: *weight_snr,
        })
    });
    Ok(epochs.collect())
}

/// Over the layers whose kernels aren't all equal.
fn median_snr(record: &Value) -> Option<f64> {
    let layers = record.get("weight_snr")?.as_object()?;
    let mut ratios: Vec<f64> = layers.values().filter_map(Value::as_f64).collect();
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() / 2;
    match ratios.len() {
        0 => None,
        length if length % 2 == 1 => Some(ratios[middle]),
        _ => Some((ratios[middle - 1] + ratios[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_a_killed_run_tells_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let test = |top1: f64| format!(r#"{{"top1":{top1},"top5":1.0,"loss":0.5,"images":10}}"#);
        let lines = [
            r#"{"event":"step","epoch":1,"step":1,"loss":3.0}"#.to_owned(),
            r#"{"event":"step","epoch":1,"step":2,"loss":9.0}"#.to_owned(),
            r#"{"event":"step","epoch":1,"st"#.to_owned(),
            r#"{"event":"step","epoch":1,"step":2,"loss":1.0}"#.to_owned(),
            format!(
                r#"{{"event":"epoch","epoch":1,"test":{},"weight_snr":{{"a":3.0,"b":null,"c":1.0}}}}"#,
                test(0.25)
            ),
            r#"{"event":"step","epoch":2,"step":1,"loss":0.5}"#.to_owned(),
            format!(
                r#"{{"event":"epoch","epoch":2,"test":{},"weight_snr":{{"a":null}}}}"#,
                test(0.5)
            ),
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let epochs = epochs(&path).unwrap();
        let losses: Vec<_> = epochs.iter().map(|epoch| epoch.training_loss).collect();
        assert_eq!(losses, [2.0, 0.5]);
        let ratios: Vec<_> = epochs.iter().map(|epoch| epoch.weight_snr).collect();
        assert_eq!(ratios, [Some(2.0), None]);
        assert_eq!(epochs[1].evaluation.top1, 0.5);
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outcome.json");
        assert_eq!(Outcome::read(&path).unwrap(), None);
        let evaluation = |loss| Evaluation {
            top1: 0.1,
            top5: 0.5,
            loss,
            images: 10,
        };
        for finish in [
            Finish::Diverged("the loss is inf".into()),
            evaluation(2.5).into(),
            evaluation(f64::NAN).into(),
            evaluation(f64::INFINITY).into(),
        ] {
            let epochs = Vec::new();
            let outcome = Outcome { finish, epochs };
            assert_eq!(outcome.write(&path).unwrap(), outcome);
            assert_eq!(Outcome::read(&path).unwrap(), Some(outcome));
        }
        assert_eq!(Finish::from(evaluation(f64::NAN)).top1(), None);
        std::fs::write(&path, "{").unwrap();
        assert!(Outcome::read(&path).is_err());
    }
}
