//! Runs as TOML files. What a file lacks is that of the preset that it names, else the default.

use std::path::{Path, PathBuf};

use model::checkpoint::PendingFile;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

use super::{
    ComputeSettings, DataSettings, NetworkSettings, OptimizerSettings, Run, SleepSettings, TrainingSettings,
    keys,
};
use crate::presets::{self, UnknownPreset};

const HEADING: &str = "# A run of Ventral's trainer in full: `trainer train --config FILE` repeats it.\n\n";

/// A run file that can't be read or written.
#[derive(Debug, Error)]
#[error("the run file {} can't be used", path.display())]
pub struct RunFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Problem,
}

/// What is wrong with a run's text.
#[derive(Debug, Error)]
pub enum Problem {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// It isn't TOML.
    #[error(transparent)]
    Syntax(Box<toml::de::Error>),
    /// Keys that no run has, all of them.
    #[error("{}", .0.join("; "))]
    Keys(Vec<String>),
    /// A value of another kind than its key's.
    #[error("{0}")]
    Value(String),
    /// It names no preset.
    #[error(transparent)]
    Preset(#[from] UnknownPreset),
    /// A number that TOML can't hold.
    #[error("it can't be written as TOML")]
    Write(#[from] toml::ser::Error),
}

/// Reads a file; whether its settings fit each other isn't asked, as flags may change them.
///
/// # Errors
/// [`RunFileError`] with every unknown key and the known one that is most like it.
pub fn read(path: &Path) -> Result<Run, RunFileError> {
    let read = || parse(&std::fs::read_to_string(path)?);
    read().map_err(|source| RunFileError {
        path: path.into(),
        source,
    })
}

/// Reads a run's text.
///
/// # Errors
/// [`Problem`].
pub fn parse(text: &str) -> Result<Run, Problem> {
    let table: Table = toml::from_str(text).map_err(|error| Problem::Syntax(Box::new(error)))?;
    from_table(table, &Run::default())
}

/// A run that is `base`, or the preset that the table names, with the table's settings laid over it.
///
/// # Errors
/// [`Problem`]; whether settings fit each other isn't asked.
pub fn from_table(table: Table, base: &Run) -> Result<Run, Problem> {
    let unknown = unknown_keys(&table);
    if !unknown.is_empty() {
        return Err(Problem::Keys(unknown));
    }
    let base = match table.get("preset").and_then(Value::as_str) {
        Some(name) => presets::find(name)?.run(),
        None => base.clone(),
    };
    overlay(&base, table)
}

/// A run with the settings of a table laid over it, section by section.
///
/// # Errors
/// [`Problem`] where a value doesn't fit its key.
fn overlay(base: &Run, over: Table) -> Result<Run, Problem> {
    let mut merged = Table::try_from(base)?;
    for (name, value) in over {
        match (merged.get_mut(&name), value) {
            (Some(Value::Table(section)), Value::Table(settings)) => section.extend(settings),
            (_, value) => {
                merged.insert(name, value);
            }
        }
    }
    merged
        .try_into()
        .map_err(|error| Problem::Value(error.to_string().trim().replace('\n', " ")))
}

/// The run's text.
///
/// # Errors
/// [`Problem::Write`] where a number is larger than TOML's.
pub fn text(run: &Run) -> Result<String, Problem> {
    Ok(format!("{HEADING}{}", toml::to_string(run)?))
}

/// Writes a run whole, so that a crash leaves either the old file or the new one.
///
/// # Errors
/// [`RunFileError`].
pub fn write(path: &Path, run: &Run) -> Result<(), RunFileError> {
    let write = || Ok(PendingFile::replace(path, text(run)?.as_bytes())?);
    write().map_err(|source| RunFileError {
        path: path.into(),
        source,
    })
}

/// `NAME.toml` for `NAME.safetensors`.
pub fn beside(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("toml")
}

/// The file's sections with their keys; `preset` stands alone.
fn known() -> Vec<(&'static str, &'static [&'static str])> {
    fn of<T: DeserializeOwned>() -> &'static [&'static str] {
        keys::of::<T>()
    }
    vec![
        ("data", of::<DataSettings>()),
        ("network", of::<NetworkSettings>()),
        ("sleep", of::<SleepSettings>()),
        ("training", of::<TrainingSettings>()),
        ("optimizer", of::<OptimizerSettings>()),
        ("compute", of::<ComputeSettings>()),
    ]
}

fn unknown_keys(table: &Table) -> Vec<String> {
    let known = known();
    let mut found = Vec::new();
    for (name, value) in table {
        if name == "preset" {
            continue;
        }
        let section = known.iter().find(|(section, _)| section == name);
        match (section, value) {
            (Some((_, keys)), Value::Table(settings)) => {
                let unknown = settings.keys().filter(|key| !keys.contains(&key.as_str()));
                found.extend(unknown.map(|key| advice(&format!("{name}.{key}"), &known)));
            }
            (Some(_), _) => found.push(format!(
                "`{name}` is a section: write [{name}] and its keys below"
            )),
            (None, _) => found.push(advice(name, &known)),
        }
    }
    found
}

/// That a key is unknown, and which known one is most like it: by its whole name, or by its last part.
fn advice(key: &str, known: &[(&str, &[&str])]) -> String {
    let last = key.rsplit_once('.').map_or(key, |(_, last)| last);
    let sections = known.iter().map(|(section, _)| (*section).to_owned());
    let keys = known
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")));
    let distance = |name: &str| {
        let name_last = name.rsplit_once('.').map_or(name, |(_, last)| last);
        let whole = strsim::damerau_levenshtein(name, key);
        whole.min(strsim::damerau_levenshtein(name_last, last))
    };
    let candidates = std::iter::once("preset".to_owned()).chain(sections).chain(keys);
    // Of names that are as like, the one of the same section.
    let nearest = candidates.min_by_key(|name| (distance(name), strsim::damerau_levenshtein(name, key)));
    match nearest {
        Some(name) => format!("unknown key `{key}`; the nearest known one is `{name}`"),
        None => format!("unknown key `{key}`"),
    }
}

/// The settings in which two runs differ, `section.key` with both values, for people.
pub fn differences(left: &Run, right: &Run) -> Vec<String> {
    let table = |run: &Run| Table::try_from(run).unwrap_or_default();
    let (left, right) = (table(left), table(right));
    let mut found = Vec::new();
    for (section, keys) in known() {
        for key in keys {
            let value = |table: &Table| table.get(section)?.get(key).map(ToString::to_string);
            let (left, right) = (value(&left), value(&right));
            if left != right {
                let say = |value: Option<String>| value.unwrap_or_else(|| "not set".into());
                found.push(format!(
                    "`{section}.{key}`: {} there, {} here",
                    say(left),
                    say(right)
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{ConnectivityChoice, Family, InitialisationChoice, SleepForm};
    use crate::training::Schedule;
    use proptest::prelude::*;

    #[test]
    fn what_a_file_lacks_is_the_default() {
        assert_eq!(parse("").unwrap(), Run::default());
        let run = parse("[training]\nepochs = 3").unwrap();
        assert_eq!(run.training.epochs, 3);
        assert_eq!(run.training.batch_size, 128);
    }

    #[test]
    fn a_preset_fills_what_a_file_lacks() {
        let run = parse("preset = \"lc-sleep10-conv\"\n[network]\nwidth = 8").unwrap();
        assert_eq!((run.network.width, run.sleep.every), (Some(8), Some(10)));
        assert_eq!(run.network.initialisation, InitialisationChoice::Conv);
    }

    #[test]
    fn unknown_keys_are_all_named_with_the_nearest() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        let both = said("[training]\nepoch = 3\n[optimizer]\nlearningrate = 1.0");
        assert!(
            both.contains("`training.epoch`; the nearest known one is `training.epochs`"),
            "{both}"
        );
        assert!(both.contains("`optimizer.learning_rate`"), "{both}");
        let section = said("[optimiser]\nmomentum = 0.5");
        assert!(
            section.contains("`optimiser`; the nearest known one is `optimizer`"),
            "{section}"
        );
        let elsewhere = said("[training]\nweight_decay = 0.1");
        assert!(elsewhere.contains("`optimizer.weight_decay`"), "{elsewhere}");
        let loose = said("epochs = 3");
        assert!(loose.contains("`training.epochs`"), "{loose}");
        let flat = said("network = \"conv\"");
        assert!(flat.contains("[network]"), "{flat}");
        let preset = said("preset = \"lc-sleep10\"");
        assert!(
            preset.contains("lc-sleep10-conv") || preset.contains("lc-sleep10-random"),
            "{preset}"
        );
    }

    #[test]
    fn wrong_values_are_named() {
        let said = |text: &str| match parse(text) {
            Err(problem) => problem.to_string(),
            Ok(run) => run.check().unwrap_err().to_string(),
        };
        for (text, part) in [
            ("[training]\nepochs = \"many\"", "training.epochs"),
            ("[training]\nepochs = -1", "training.epochs"),
            ("[network]\narchitecture = \"vgg\"", "resnet-cifar"),
            ("[compute]\ndevice = \"gpu\"", "cuda:N"),
            (
                "[training]\nbatch_size = 0",
                "`training.batch_size` must be at least 1",
            ),
            ("[optimizer]\nlearning_rate = nan", "`optimizer.learning_rate`"),
            ("[sleep]\nform = \"anti-hebbian\"", "--sleep-every"),
            ("[network]\ndeviation = 0.5", "--initialisation conv"),
            ("training", "expected"),
        ] {
            let said = said(text);
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    fn finite() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(1e-4), 1e-12_f64..1e3]
    }

    fn count() -> impl Strategy<Value = usize> {
        1_usize..100_000
    }

    prop_compose! {
        fn network()(
            architecture in prop_oneof![Just(Family::Resnet18), Just(Family::ShortResnet), Just(Family::ResnetCifar)],
            blocks in proptest::option::of(proptest::collection::vec(1_usize..5, 1..5)),
            width in proptest::option::of(count()),
            lc in any::<bool>(),
            n_first_conv in 0_usize..3,
            deviation in proptest::option::of(finite()),
        ) -> NetworkSettings {
            NetworkSettings {
                architecture,
                blocks,
                width,
                connectivity: if lc { ConnectivityChoice::Lc } else { ConnectivityChoice::Conv },
                n_first_conv: if lc { n_first_conv } else { 0 },
                initialisation: if deviation.is_some() {
                    InitialisationChoice::Conv
                } else {
                    InitialisationChoice::Random
                },
                deviation: deviation.unwrap_or(0.0),
                start_from: None,
            }
        }
    }

    prop_compose! {
        fn sleep()(
            every in proptest::option::of(count()),
            anti_hebbian in any::<bool>(),
            iterations in proptest::option::of(count()),
            gamma in proptest::option::of(finite()),
        ) -> SleepSettings {
            let anti_hebbian = anti_hebbian && every.is_some();
            SleepSettings {
                every,
                form: if anti_hebbian { SleepForm::AntiHebbian } else { SleepForm::Instant },
                iterations: iterations.filter(|_| anti_hebbian),
                gamma: gamma.filter(|_| anti_hebbian),
                ..SleepSettings::default()
            }
        }
    }

    prop_compose! {
        fn runs()(
            network in network(),
            sleep in sleep(),
            (epochs, batch_size, micro_batch) in (0_usize..1000, count(), proptest::option::of(count())),
            seed in 0..=i64::MAX as u64,
            schedule in prop_oneof![Just(Schedule::Steps), Just(Schedule::Cosine), Just(Schedule::Constant)],
            (learning_rate, weight_decay) in (finite(), finite()),
            threads in proptest::option::of(1_usize..64),
            preset in proptest::option::of(0..presets::ALL.len()),
        ) -> Run {
            // What a preset sets and a run lacks would be the preset's.
            let preset = preset.map(|index| &presets::ALL[index]).filter(|preset| preset.sleep_every.is_none());
            let mut run = preset.map(presets::Preset::run).unwrap_or_default();
            run.network = network;
            run.sleep = sleep;
            run.training = TrainingSettings {
                epochs,
                batch_size,
                micro_batch,
                schedule,
                seed,
                ..TrainingSettings::default()
            };
            run.optimizer = OptimizerSettings {
                learning_rate,
                weight_decay,
                ..OptimizerSettings::default()
            };
            run.compute.threads = threads;
            run
        }
    }

    proptest! {
        #[test]
        fn a_run_is_read_as_it_was_written(run in runs()) {
            run.check().unwrap();
            prop_assert_eq!(parse(&text(&run).unwrap()).unwrap(), run);
        }

        #[test]
        fn no_text_makes_reading_fail_otherwise_than_by_an_error(text in "[ -~\n]{0,200}") {
            let _ = parse(&text);
        }
    }
}
