//! The runs of a sweep, in the order in which they are done.

use std::collections::BTreeMap;

use super::{Member, Stage, Sweep, SweepError};
use crate::presets::{HELD_OUT, Preset};
use crate::run::{Run, SleepSettings};

/// The runs of a sweep.
#[derive(Clone, Debug)]
pub struct Plan {
    entries: Vec<Entry>,
    seeds: Vec<u64>,
    choosing_seeds: Vec<u64>,
    choosing_epochs: Option<usize>,
    hold_out: Option<usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    preset: &'static Preset,
    learning_rates: Vec<f64>,
    run: Run,
}

impl Plan {
    /// `adjust` lays settings over every run, over the sweep's own.
    ///
    /// # Errors
    /// [`SweepError`] where the sweep or one of its runs contradicts itself.
    pub fn new(sweep: &Sweep, adjust: impl Fn(&mut Run)) -> Result<Self, SweepError> {
        sweep.check()?;
        let presets = sweep.presets()?;
        let sleeps = presets.iter().any(|preset| preset.sleep_every.is_some());
        let entries = presets.into_iter().map(|preset| {
            let learning_rates = sweep.learning_rates(preset);
            let mut run = sweep.run(preset)?;
            adjust(&mut run);
            // How to sleep is for those that do.
            if sleeps && run.sleep.every.is_none() {
                run.sleep = SleepSettings::default();
            }
            let keys = changed(preset, &run);
            if !keys.is_empty() {
                return Err(SweepError::OtherPreset {
                    preset: preset.name,
                    keys,
                });
            }
            if learning_rates.is_empty() || run.training.epochs == 0 {
                return Err(SweepError::Empty(format!(
                    "`{}` stays untrained: a sweep has nothing to do with it; `trainer train --preset {}` writes it",
                    preset.name, preset.name
                )));
            }
            if run.data.hold_out > 0 {
                return Err(SweepError::Empty(
                    "the runs that are tested hold no images out: give `choice.hold_out`, not `run.data.hold_out`".into(),
                ));
            }
            run.check().map_err(|reason| SweepError::Run {
                preset: preset.name,
                reason,
            })?;
            Ok(Entry {
                preset,
                learning_rates,
                run,
            })
        });
        Ok(Self {
            entries: entries.collect::<Result<_, SweepError>>()?,
            seeds: sweep.seeds.clone(),
            choosing_seeds: if sweep.choice.seeds.is_empty() {
                sweep.seeds.clone()
            } else {
                sweep.choice.seeds.clone()
            },
            choosing_epochs: sweep.choice.epochs,
            hold_out: sweep.choice.hold_out,
        })
    }

    /// The sweep's presets.
    pub fn presets(&self) -> impl Iterator<Item = &'static Preset> {
        self.entries.iter().map(|entry| entry.preset)
    }

    /// A run with what all runs have in common.
    pub fn any_run(&self) -> Option<&Run> {
        self.entries.first().map(|entry| &entry.run)
    }

    /// How many runs there are, of both stages.
    pub fn len(&self) -> usize {
        self.choices(0).len() + self.entries.len() * self.seeds.len()
    }

    /// How many epochs all runs have together.
    pub fn epochs(&self) -> usize {
        let choices = self.choices(0).into_iter();
        let choosing = choices.map(|member| member.run.training.epochs);
        let tested = self.entries.iter().map(|entry| entry.run.training.epochs);
        let tested = tested.map(|epochs| epochs.saturating_mul(self.seeds.len()));
        choosing.chain(tested).fold(0, usize::saturating_add)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs that choose a learning rate, for a number of training images.
    pub fn choices(&self, images: usize) -> Vec<Member> {
        let mut members = Vec::new();
        for &seed in &self.choosing_seeds {
            for entry in self.entries.iter().filter(|entry| entry.learning_rates.len() > 1) {
                for &learning_rate in &entry.learning_rates {
                    let mut member = entry.member(Stage::Choice, learning_rate, seed);
                    let run = &mut member.run;
                    run.training.epochs = self.choosing_epochs.unwrap_or(run.training.epochs);
                    let usual = HELD_OUT.min(images.div_ceil(6));
                    run.data.hold_out = self.hold_out.unwrap_or(usual);
                    members.push(member);
                }
            }
        }
        members
    }

    /// The runs that are tested, a seed after the other; `best` says which learning rate was best where one was chosen. Where
    /// none could be, there are none.
    pub fn finals(&self, best: &BTreeMap<&str, f64>) -> Vec<Member> {
        let of_seed = |&seed: &u64| {
            self.entries.iter().filter_map(move |entry| {
                let learning_rate = match entry.learning_rates.as_slice() {
                    [only] => *only,
                    _ => *best.get(entry.preset.name)?,
                };
                Some(entry.member(Stage::Final, learning_rate, seed))
            })
        };
        self.seeds.iter().flat_map(of_seed).collect()
    }
}

impl Entry {
    fn member(&self, stage: Stage, learning_rate: f64, seed: u64) -> Member {
        let mut run = self.run.clone();
        run.optimizer.learning_rate = learning_rate;
        run.training.seed = seed;
        Member {
            preset: self.preset,
            stage,
            run,
        }
    }
}

/// The settings of a run, by their keys, that make it another network than its preset says.
fn changed(preset: &Preset, run: &Run) -> Vec<String> {
    let settings = [
        (
            "`network.connectivity`",
            run.network.connectivity == preset.connectivity,
        ),
        (
            "`network.n_first_conv`",
            run.network.n_first_conv == preset.n_first_conv,
        ),
        (
            "`network.initialisation`",
            run.network.initialisation == preset.initialisation,
        ),
        ("`sleep.every`", run.sleep.every == preset.sleep_every),
    ];
    let changed = settings.into_iter().filter(|&(_, same)| !same);
    changed.map(|(key, _)| key.to_owned()).collect()
}

/// The learning rate that is best for every preset by the mean accuracy over seeds on the images that were held out; of
/// equal ones, the first. A rate with which a run diverged is out, and so is a preset whose rates all are.
pub fn best(accuracies: &[(&Member, Option<f64>)]) -> BTreeMap<&'static str, (f64, f64)> {
    let mut best: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
    for (member, _) in accuracies {
        let (name, rate) = (member.preset.name, member.run.optimizer.learning_rate);
        let of_rate: Option<Vec<f64>> = accuracies
            .iter()
            .filter(|(other, _)| {
                other.preset.name == name && other.run.optimizer.learning_rate.total_cmp(&rate).is_eq()
            })
            .map(|(_, accuracy)| *accuracy)
            .collect();
        let Some(of_rate) = of_rate else { continue };
        let mean = of_rate.iter().sum::<f64>() / of_rate.len() as f64;
        if best.get(name).is_none_or(|(_, highest)| mean > *highest) {
            best.insert(name, (rate, mean));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::SleepForm;

    fn sweep(text: &str) -> Sweep {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn all_trained_rows_are_swept_unless_some_are_named() {
        let plan = Plan::new(&Sweep::default(), |_| ()).unwrap();
        assert_eq!((plan.len(), plan.choices(60_000).len()), (11, 0));
        let finals = plan.finals(&BTreeMap::new());
        for member in &finals {
            assert_eq!(
                Some(member.run.optimizer.learning_rate),
                member.preset.learning_rate
            );
            assert_eq!(member.run.data.hold_out, 0);
        }
    }

    #[test]
    fn choosing_is_by_every_rate_and_testing_by_the_best() {
        let sweep = sweep(
            "presets = [\"conv\", \"lc-random\"]\nlearning_rates = [1e-4, 1e-3, 1e-2]\nseeds = [1, 2]\n\
             [choice]\nepochs = 1\nseeds = [7]\n[run.training]\nepochs = 3",
        );
        let plan = Plan::new(&sweep, |run| run.network.width = Some(4)).unwrap();
        let choices = plan.choices(60_000);
        assert_eq!((choices.len(), plan.len()), (6, 10));
        assert_eq!(plan.epochs(), 6 + 4 * 3);
        let endless = Plan::new(&sweep, |run| run.training.epochs = usize::MAX / 2).unwrap();
        assert_eq!(endless.epochs(), usize::MAX);
        for member in &choices {
            assert_eq!(member.run.data.hold_out, 10_000);
            assert_eq!((member.run.training.epochs, member.run.training.seed), (1, 7));
            assert_eq!(member.run.network.width, Some(4));
        }
        assert_eq!(plan.choices(1200)[0].run.data.hold_out, 200);
        let accuracies: Vec<_> = choices
            .iter()
            .zip([Some(0.2), Some(0.4), None, Some(0.1), Some(0.1), Some(0.05)])
            .collect();
        let best = best(&accuracies);
        assert_eq!(best["conv"], (1e-3, 0.4));
        assert_eq!(best["lc-random"].0, 1e-4);
        let rates = best.iter().map(|(name, (rate, _))| (*name, *rate)).collect();
        let finals = plan.finals(&rates);
        let seeds: Vec<_> = finals.iter().map(|member| member.run.training.seed).collect();
        assert_eq!(seeds, [1, 1, 2, 2]);
        assert_eq!(finals[0].run.training.epochs, 3);
        assert_eq!(finals[0].run.optimizer.learning_rate, 1e-3);
    }

    #[test]
    fn another_form_of_sleep_is_for_those_that_sleep() {
        let adjust = |run: &mut Run| run.sleep.form = SleepForm::AntiHebbian;
        let plan = Plan::new(&Sweep::default(), adjust).unwrap();
        for member in plan.finals(&BTreeMap::new()) {
            let sleeps = member.preset.sleep_every.is_some();
            assert_eq!(member.run.sleep.form == SleepForm::AntiHebbian, sleeps);
        }
    }

    #[test]
    fn a_preset_whose_rates_all_diverge_is_left_out() {
        let sweep = sweep("presets = [\"conv\", \"lc-random\"]\nlearning_rates = [1e-4, 1e-3]");
        let plan = Plan::new(&sweep, |_| ()).unwrap();
        let finals = plan.finals(&BTreeMap::from([("conv", 1e-3)]));
        let names: Vec<_> = finals.iter().map(|member| member.preset.name).collect();
        assert_eq!(names, ["conv"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let said = |text: &str| Plan::new(&sweep(text), |_| ()).unwrap_err().to_string();
        for (text, part) in [
            ("presets = [\"lc-untrained\"]", "stays untrained"),
            ("presets = [\"conf\"]", "the nearest is `conv`"),
            ("seeds = []", "a seed at least"),
            ("seeds = [1, 1]", "name 1 twice"),
            ("learning_rates = [0.0]", "above 0"),
            ("[choice]\nhold_out = 0", "at least"),
            ("[run.network]\nwith = 3", "`network.width`"),
            ("[run.sleep]\ngamma = 1.0", "--sleep-gamma"),
            (
                "presets = [\"conv\"]\n[run.sleep]\nform = \"anti-hebbian\"",
                "--sleep-every",
            ),
            ("[run]\npreset = \"conv\"", "`presets`"),
            (
                "[run.network]\nconnectivity = \"lc\"",
                "preset `conv`: `network.connectivity` would be changed",
            ),
            (
                "presets = [\"lc-conv1-conv\"]\n[run.network]\nn_first_conv = 2\ninitialisation = \"random\"",
                "`network.n_first_conv`, `network.initialisation`",
            ),
            ("[run.sleep]\nevery = 5", "preset `conv`: `sleep.every`"),
        ] {
            let said = said(text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
