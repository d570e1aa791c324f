//! Reads the file, the environment and the flags, and remembers where each value comes from. All errors are gathered, so
//! that one look shows them all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::options::{ConfigOption, OPTIONS, VARIABLE_PREFIX, find, nearest};

/// Names the file; a flag of the same meaning wins.
pub const FILE_VARIABLE: &str = "VENTRAL_CONFIG";

/// Says what is logged in many programs, hence here too; `VENTRAL_LOG_FILTER` wins.
const LOG_VARIABLE: &str = "RUST_LOG";

/// The option that [`LOG_VARIABLE`] sets.
const LOG_KEY: &str = "log.filter";

/// Where options are set.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Names and values of the environment's variables.
    pub environment: BTreeMap<String, String>,
    /// Keys of options and the values of their flags.
    pub flags: BTreeMap<&'static str, String>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing sets it.
    Default,
    /// The file's line, counted from 1.
    File(PathBuf, usize),
    /// The variable of this name.
    Environment(String),
    /// The flag of this name.
    Flag(String),
}

/// A configuration with the origin of each of its values.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// Of every option that is set, by its key.
    origins: BTreeMap<&'static str, Origin>,
    /// What is probably a mistake, but may be someone else's variable.
    pub warnings: Vec<String>,
}

/// All that is wrong with a configuration.
#[derive(Debug, Error)]
#[error("the configuration has {}:\n  {}", count(.0), .0.join("\n  "))]
pub struct ConfigErrors(pub Vec<String>);

/// The configuration that some sources make, so far as it could be read.
#[derive(Default)]
struct Reading {
    config: Config,
    origins: BTreeMap<&'static str, Origin>,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Sources {
    /// Those of this process, whose flags have been read.
    pub fn of_process(file: Option<PathBuf>, flags: BTreeMap<&'static str, String>) -> Self {
        let variables = std::env::vars_os();
        let environment = variables.filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            // A value that isn't Unicode stays an error of its option, not of everything.
            let ours = name.starts_with(VARIABLE_PREFIX) || name == LOG_VARIABLE;
            ours.then(|| (name, value.to_string_lossy().into_owned()))
        });
        let environment: BTreeMap<_, _> = environment.collect();
        let named = environment.get(FILE_VARIABLE).filter(|value| !value.is_empty());
        Self {
            file: file.or_else(|| named.map(PathBuf::from)),
            environment,
            flags,
        }
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn read(&self) -> Result<Effective, ConfigErrors> {
        let mut reading = Reading::default();
        if let Some(path) = &self.file {
            reading.file(path);
        }
        reading.environment(&self.environment);
        for (&key, value) in &self.flags {
            if let Some(option) = find(key) {
                reading.set(option, value, Origin::Flag(format!("--{}", option.flag())));
            }
        }
        if reading.errors.is_empty() {
            reading.errors = reading.config.contradictions();
        }
        if !reading.errors.is_empty() {
            return Err(ConfigErrors(reading.errors));
        }
        Ok(Effective {
            config: reading.config,
            origins: reading.origins,
            warnings: reading.warnings,
        })
    }
}

impl Reading {
    fn set(&mut self, option: &ConfigOption, text: &str, origin: Origin) {
        match (option.set)(&mut self.config, text) {
            Ok(()) => {
                self.origins.insert(option.key, origin);
            }
            Err(expected) => self
                .errors
                .push(format!("{origin}: `{}` is {text:?}: {expected}", option.key)),
        }
    }

    fn environment(&mut self, variables: &BTreeMap<String, String>) {
        let value = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        for option in OPTIONS {
            let mut name = option.variable();
            if option.key == LOG_KEY && value(&name).is_none() {
                name = LOG_VARIABLE.into();
            }
            if let Some(text) = value(&name) {
                self.set(option, text, Origin::Environment(name));
            }
        }
        for name in variables.keys().filter(|name| name.starts_with(VARIABLE_PREFIX)) {
            let known = name == FILE_VARIABLE || OPTIONS.iter().any(|option| option.variable() == *name);
            if known {
                continue;
            }
            // Others have variables that begin alike, Kubernetes for a service of this name: only what looks like a
            // slip is worth a word.
            if let Some(meant) = nearest(name, ConfigOption::variable)
                && strsim::damerau_levenshtein(&meant, name) <= 2
            {
                self.warnings
                    .push(format!("the variable {name} is not read; did you mean {meant}?"));
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                let error = format!(
                    "the configuration file `{}` can't be read: {error}",
                    path.display()
                );
                return self.errors.push(error);
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let line = error.span().map_or(1, |span| line(&text, &span));
            let place = Origin::File(path.into(), line);
            self.errors.push(format!("{place}: {}", error.message()));
        }
        if self.errors.is_empty() {
            self.table(path, &text, "", table.get_ref());
        }
    }

    fn table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let origin = Origin::File(path.into(), line(text, &name.span()));
            match (find(&key), scalar(value)) {
                (Some(option), Some(text)) => self.set(option, &text, origin),
                (Some(_), None) => self.errors.push(format!(
                    "{origin}: `{key}` must be a text, a number or true or false"
                )),
                (None, _) => match value.get_ref() {
                    DeValue::Table(table) if is_table(&key) => self.table(path, text, &key, table),
                    _ => {
                        let meant = nearest(&key, |option| option.key.into());
                        let meant = meant.map(|key| format!("; did you mean `{key}`?"));
                        self.errors.push(format!(
                            "{origin}: `{key}` is not an option{}",
                            meant.unwrap_or_default()
                        ));
                    }
                },
            }
        }
    }
}

/// A configuration is small: whatever is larger is the wrong file.
fn read_text(path: &Path) -> io::Result<String> {
    const MOST: u64 = 1 << 20;
    if fs::metadata(path)?.len() > MOST {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    fs::read_to_string(path)
}

fn is_table(key: &str) -> bool {
    OPTIONS.iter().any(|option| {
        option
            .key
            .strip_prefix(key)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// A value as its text; nothing for lists and tables.
fn scalar<'a>(value: &'a Spanned<DeValue<'_>>) -> Option<Cow<'a, str>> {
    match value.get_ref() {
        DeValue::String(text) => Some(Cow::Borrowed(text)),
        DeValue::Integer(number) => Some(Cow::Owned(number.to_string())),
        DeValue::Float(number) => Some(Cow::Owned(number.to_string())),
        DeValue::Boolean(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line(text: &str, span: &Range<usize>) -> usize {
    text.bytes()
        .take(span.start)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1
}

fn count(errors: &[String]) -> String {
    match errors.len() {
        1 => "an error".into(),
        count => format!("{count} errors"),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path, line) => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => write!(formatter, "environment {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

impl Effective {
    /// Where an option's value comes from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// The configuration as a file that would give the same, with the origin of each value behind it.
    pub fn to_toml(&self) -> String {
        let mut lines = String::new();
        let mut table = "";
        for option in OPTIONS {
            if option.table() != table {
                table = option.table();
                // Writing to a string can't fail.
                let _ = writeln!(lines, "\n[{table}]");
            }
            let name = option.key.rsplit_once('.').map_or(option.key, |(_, name)| name);
            let line = match (option.get)(&self.config) {
                Some(text) => format!("{name} = {}", quoted(&text)),
                None => format!("# {name} is not set"),
            };
            let _ = match self.origin(option.key) {
                Origin::Default if line.starts_with('#') => writeln!(lines, "{line}"),
                origin => writeln!(lines, "{line:<44} # {origin}"),
            };
        }
        lines
    }
}

/// A value as TOML has it: numbers and truth values as they are, everything else in quotation marks.
fn quoted(text: &str) -> String {
    let plain = text.parse::<u64>().is_ok() || text.parse::<bool>().is_ok();
    if plain {
        text.into()
    } else {
        toml::Value::String(text.into()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sources(
        file: Option<(&Path, &str)>,
        variables: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Sources {
        let file = file.map(|(folder, text)| {
            let path = folder.join("ventral.toml");
            fs::write(&path, text).unwrap();
            path
        });
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Sources {
            file,
            environment: variables.iter().map(owned).collect(),
            flags: flags
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = "models = \"from-file\"\nhttp = \"127.0.0.1:1\"\ngrpc = \"127.0.0.1:1\"\n\n[drain]\ntimeout = \"1s\"\n";
        let variables = [
            ("VENTRAL_HTTP", "127.0.0.1:2"),
            ("VENTRAL_GRPC", "127.0.0.1:2"),
            ("VENTRAL_THREADS", ""),
        ];
        let found = sources(
            Some((folder.path(), file)),
            &variables,
            &[("grpc", "127.0.0.1:3")],
        );
        let found = found.read().unwrap();
        assert_eq!(found.config.models, Path::new("from-file"));
        assert_eq!(found.config.http, "127.0.0.1:2");
        assert_eq!(found.config.grpc, "127.0.0.1:3");
        assert_eq!(found.config.drain.timeout, Duration::from_secs(1));
        assert_eq!(found.config.threads, None, "an empty variable sets nothing");
        let path = folder.path().join("ventral.toml");
        assert_eq!(*found.origin("models"), Origin::File(path.clone(), 1));
        assert_eq!(*found.origin("drain.timeout"), Origin::File(path, 6));
        assert_eq!(*found.origin("http"), Origin::Environment("VENTRAL_HTTP".into()));
        assert_eq!(*found.origin("grpc"), Origin::Flag("--grpc".into()));
        assert_eq!(*found.origin("limits.images"), Origin::Default);
    }

    #[test]
    fn what_is_shown_is_a_file_that_gives_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let flags = [
            ("models", "a \"b\" #c"),
            ("limits.body_bytes", "3MiB"),
            ("threads", "7"),
            ("cuda.tf32", "true"),
        ];
        let first = sources(None, &[], &flags).read().unwrap();
        let shown = first.to_toml();
        let second = sources(Some((folder.path(), &shown)), &[], &[]).read().unwrap();
        let values = |effective: &Effective| {
            OPTIONS
                .iter()
                .map(|o| (o.get)(&effective.config))
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&first), values(&second));
        assert!(shown.contains("# flag --limits-body-bytes"), "{shown}");
        assert!(shown.contains("# default"), "{shown}");
    }

    #[test]
    fn all_errors_are_listed_at_once_with_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = "model = \"m\"\nthreads = 0\n[limits]\nbody_byte = 1\nimages = [1]\n[nothing_like_it_at_all]\nx = 1\n";
        let variables = [("VENTRAL_HTTP", "8080"), ("VENTRAL_PROGRAMS", "elsewhere")];
        let errors = sources(Some((folder.path(), file)), &variables, &[("grpc", "x")])
            .read()
            .unwrap_err()
            .0;
        for (place, message) in [
            (
                "ventral.toml:1: ",
                "`model` is not an option; did you mean `models`?",
            ),
            (
                "ventral.toml:2: ",
                "`threads` is \"0\": expected a whole number from 1",
            ),
            (
                "ventral.toml:4: ",
                "`limits.body_byte` is not an option; did you mean `limits.body_bytes`?",
            ),
            ("ventral.toml:5: ", "`limits.images` must be a text, a number"),
            ("ventral.toml:6: ", "`nothing_like_it_at_all` is not an option"),
            ("environment VENTRAL_HTTP: ", "expected HOST:PORT"),
            ("flag --grpc: ", "expected HOST:PORT"),
        ] {
            assert!(
                errors
                    .iter()
                    .any(|error| error.contains(place) && error.contains(message)),
                "{place}{message} in {errors:#?}"
            );
        }
        assert_eq!(errors.len(), 7, "{errors:#?}");
    }

    #[test]
    fn a_file_that_is_not_toml_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let errors = sources(Some((folder.path(), "models = \"m\"\nhttp == 3\n")), &[], &[]);
        let errors = errors.read().unwrap_err().0;
        assert!(errors[0].contains("ventral.toml:2: "), "{errors:?}");
        let missing = Sources {
            file: Some(folder.path().join("nothing.toml")),
            ..Sources::default()
        };
        assert!(missing.read().unwrap_err().0[0].contains("can't be read"));
    }

    #[test]
    fn a_variable_that_is_nearly_one_of_ours_is_warned_of() {
        let variables = [
            ("VENTRAL_THREAD", "2"),
            ("VENTRAL_PROGRAMS", "x"),
            ("VENTRAL_SERVICE_HOST", "10.0.0.1"),
            ("VENTRAL_MODELS", "m"),
            ("RUST_LOG", "debug"),
        ];
        let found = sources(None, &variables, &[]).read().unwrap();
        assert_eq!(
            found.warnings,
            ["the variable VENTRAL_THREAD is not read; did you mean VENTRAL_THREADS?"]
        );
        assert_eq!(found.config.log.filter, "debug");
        let both = [variables[3], variables[4], ("VENTRAL_LOG_FILTER", "warn")];
        assert_eq!(
            sources(None, &both, &[]).read().unwrap().config.log.filter,
            "warn"
        );
    }
}
