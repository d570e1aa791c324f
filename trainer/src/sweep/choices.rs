//! The runs that choose learning rates, as tables.

use std::path::Path;

use super::report::{ReportError, replace};
use super::{Finish, Member, Outcome};

/// Finished runs that choose a learning rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choices<'a>(pub(super) &'a [(&'a Member, Outcome)]);

impl Choices<'_> {
    /// Writes `choices.csv` and `choices.md`.
    ///
    /// # Errors
    /// [`ReportError`].
    pub(super) fn write(&self, folder: &Path) -> Result<(), ReportError> {
        replace(&folder.join("choices.csv"), self.csv().as_bytes())?;
        replace(&folder.join("choices.md"), self.markdown().as_bytes())
    }

    fn csv(&self) -> String {
        let mut table = "preset,learning_rate,seed,validation_top1\n".to_owned();
        for (member, Outcome { finish, .. }) in self.0 {
            let top1 = match finish {
                Finish::Evaluated(evaluation) => evaluation.top1.to_string(),
                Finish::Diverged(_) => "diverged".into(),
            };
            let (name, rate, seed) = member.identity();
            table.push_str(&format!("{name},{rate:e},{seed},{top1}\n"));
        }
        table
    }

    fn markdown(&self) -> String {
        let mut table =
            "| preset | learning rate | seed | held out, top-1 % |\n|---|---|---|---|\n".to_owned();
        for (member, Outcome { finish, .. }) in self.0 {
            let top1 = match finish {
                Finish::Evaluated(evaluation) => format!("{:.2}", evaluation.top1 * 100.0),
                Finish::Diverged(_) => "diverged".into(),
            };
            let (name, rate, seed) = member.identity();
            table.push_str(&format!("| `{name}` | {rate:e} | {seed} | {top1} |\n"));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::{Plan, Sweep};
    use crate::training::Evaluation;

    #[test]
    fn every_run_is_a_line() {
        let sweep: Sweep =
            toml::from_str("presets = [\"conv\"]\nlearning_rates = [1e-3, 1e30]\nseeds = [7]").unwrap();
        let members = Plan::new(&sweep, |_| ()).unwrap().choices(60_000);
        let finishes = [
            Finish::from(Evaluation {
                top1: 0.625,
                top5: 1.0,
                loss: 1.0,
                images: 8,
            }),
            Finish::Diverged("the loss is inf".into()),
        ];
        let outcomes: Vec<_> = members
            .iter()
            .zip(finishes)
            .map(|(member, finish)| {
                let epochs = Vec::new();
                (member, Outcome { finish, epochs })
            })
            .collect();
        let choices = Choices(&outcomes);
        assert_eq!(
            choices.csv(),
            "preset,learning_rate,seed,validation_top1\nconv,1e-3,7,0.625\nconv,1e30,7,diverged\n"
        );
        let table = choices.markdown();
        assert!(
            table.ends_with("| `conv` | 1e-3 | 7 | 62.50 |\n| `conv` | 1e30 | 7 | diverged |\n"),
            "{table}"
        );
    }
}
