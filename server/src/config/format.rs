//! How values are written: the same in the file, the environment and flags. A kind of value is a type here that reads
//! and writes values of another type.

use std::fmt::Display;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Reads and writes a kind of value.
pub trait Format {
    /// What is read.
    type Value;
    /// The kind's name in usage texts.
    const NAME: &'static str;

    /// Reads a value.
    ///
    /// # Errors
    /// What was expected.
    fn parse(text: &str) -> Result<Self::Value, String>;

    /// Writes a value so that [`Self::parse`] gives it back; nothing where there is none.
    fn show(value: &Self::Value) -> Option<String>;
}

/// Any text.
pub struct Text;

/// A path; relative ones start in the folder that the program is run in.
pub struct File;

/// `HOST:PORT`.
pub struct Address;

/// `http://…` or `https://…`.
pub struct Url;

/// Directives of the log.
pub struct Filter;

/// A whole number from 0.
pub struct Index;

/// A whole number from 1, of any type.
pub struct Count<T>(PhantomData<T>);

/// Bytes: a whole number from 1, perhaps with a unit.
pub struct Size<T = usize>(PhantomData<T>);

/// A time: a number with its unit.
pub struct Length;

/// A number above 0, a second.
pub struct Rate;

/// A number from 0 to 1.
pub struct Share;

/// `true` or `false`.
pub struct Switch;

/// One of a few words.
pub struct Choice<T>(PhantomData<T>);

/// A value that may be missing.
pub struct Optional<F>(PhantomData<F>);

impl Format for Text {
    type Value = String;
    const NAME: &'static str = "TEXT";

    fn parse(text: &str) -> Result<String, String> {
        Ok(text.into())
    }

    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

impl Format for File {
    type Value = PathBuf;
    const NAME: &'static str = "PATH";

    fn parse(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err("expected a path".into());
        }
        Ok(text.into())
    }

    fn show(value: &PathBuf) -> Option<String> {
        (!value.as_os_str().is_empty()).then(|| value.display().to_string())
    }
}

impl Format for Address {
    type Value = String;
    const NAME: &'static str = "HOST:PORT";

    fn parse(text: &str) -> Result<String, String> {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.into()),
            _ => Err("expected HOST:PORT, such as 127.0.0.1:8080".into()),
        }
    }

    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

impl Format for Url {
    type Value = String;
    const NAME: &'static str = "URL";

    fn parse(text: &str) -> Result<String, String> {
        let uri = text.parse::<http::Uri>().ok();
        let known =
            |uri: &http::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        uri.filter(known).map(|_| text.into()).ok_or_else(|| {
            "expected a URL that begins with http:// or https://, such as http://127.0.0.1:4317".into()
        })
    }

    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

impl Format for Filter {
    type Value = String;
    const NAME: &'static str = "DIRECTIVES";

    fn parse(text: &str) -> Result<String, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(text.into()),
            Err(error) => Err(format!("expected directives such as info,server=debug: {error}")),
        }
    }

    fn show(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

impl Format for Index {
    type Value = i32;
    const NAME: &'static str = "N";

    fn parse(text: &str) -> Result<i32, String> {
        let value = text.parse().ok().filter(|&value| value >= 0);
        value.ok_or_else(|| "expected a whole number from 0".into())
    }

    fn show(value: &i32) -> Option<String> {
        Some(value.to_string())
    }
}

impl<T: FromStr + Display> Format for Count<T> {
    type Value = T;
    const NAME: &'static str = "N";

    fn parse(text: &str) -> Result<T, String> {
        let is_above_zero = text.parse::<u64>().is_ok_and(|value| value > 0);
        let value = text.parse().ok().filter(|_| is_above_zero);
        value.ok_or_else(|| "expected a whole number from 1".into())
    }

    fn show(value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// Units of bytes, the largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

impl<T: Copy + TryFrom<u64> + TryInto<u64>> Format for Size<T> {
    type Value = T;
    const NAME: &'static str = "BYTES";

    fn parse(text: &str) -> Result<T, String> {
        let split = text.find(|letter: char| !letter.is_ascii_digit());
        let (number, unit) = text.split_at(split.unwrap_or(text.len()));
        let unit = UNITS.iter().find(|(name, _)| *name == unit.trim());
        let value = unit.and_then(|(_, unit)| number.parse::<u64>().ok()?.checked_mul(*unit));
        let value = value.filter(|&value| value > 0);
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
            "expected a number of bytes from 1, such as 65536, or with a unit: 64KiB, 16MiB, 1GiB".into()
        })
    }

    fn show(value: &T) -> Option<String> {
        let value: u64 = (*value).try_into().ok()?;
        let unit = UNITS
            .iter()
            .find(|(_, unit)| value.is_multiple_of(*unit) && value >= *unit);
        unit.map(|(name, unit)| format!("{}{name}", value / unit))
    }
}

impl Format for Length {
    type Value = Duration;
    const NAME: &'static str = "TIME";

    fn parse(text: &str) -> Result<Duration, String> {
        let split = text.find(|letter: char| !letter.is_ascii_digit());
        let (number, unit) = text.split_at(split.unwrap_or(text.len()));
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "min" => 60_000,
            _ => 0,
        };
        let value = number.parse::<u64>().ok().filter(|_| milliseconds > 0);
        let value = value.and_then(|value| value.checked_mul(milliseconds));
        // A day is more than any sensible wait, and far from what clocks can't add.
        let value = value.filter(|&value| value <= 86_400_000);
        value
            .map(Duration::from_millis)
            .ok_or_else(|| "expected a whole number with a unit, at most a day: 500ms, 30s, 5min".into())
    }

    fn show(value: &Duration) -> Option<String> {
        let milliseconds = value.as_millis();
        Some(if milliseconds.is_multiple_of(1000) {
            format!("{}s", milliseconds / 1000)
        } else {
            format!("{milliseconds}ms")
        })
    }
}

impl Format for Rate {
    type Value = f64;
    const NAME: &'static str = "N";

    fn parse(text: &str) -> Result<f64, String> {
        let value = text
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite() && *value > 0.0);
        value.ok_or_else(|| "expected a number above 0".into())
    }

    fn show(value: &f64) -> Option<String> {
        Some(value.to_string())
    }
}

impl Format for Share {
    type Value = f64;
    const NAME: &'static str = "0..1";

    fn parse(text: &str) -> Result<f64, String> {
        let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        value.ok_or_else(|| "expected a number from 0 to 1".into())
    }

    fn show(value: &f64) -> Option<String> {
        Some(value.to_string())
    }
}

impl Format for Switch {
    type Value = bool;
    const NAME: &'static str = "true|false";

    fn parse(text: &str) -> Result<bool, String> {
        text.parse().map_err(|_| "expected true or false".into())
    }

    fn show(value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

impl<T: ValueEnum> Format for Choice<T> {
    type Value = T;
    const NAME: &'static str = "WORD";

    fn parse(text: &str) -> Result<T, String> {
        T::from_str(text, false).map_err(|_| {
            let words = T::value_variants().iter().filter_map(Self::show);
            format!("expected one of {}", words.collect::<Vec<_>>().join(", "))
        })
    }

    fn show(value: &T) -> Option<String> {
        Some(value.to_possible_value()?.get_name().into())
    }
}

impl<F: Format> Format for Optional<F> {
    type Value = Option<F::Value>;
    const NAME: &'static str = F::NAME;

    fn parse(text: &str) -> Result<Self::Value, String> {
        F::parse(text).map(Some)
    }

    fn show(value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(F::show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<F: Format>(texts: &[&str]) {
        for text in texts {
            assert!(F::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [("1", 1), ("64KiB", 65536), ("3 MiB", 3 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(<Size>::parse(text).unwrap(), bytes);
        }
        for (bytes, text) in [(1, "1"), (1023, "1023"), (1024, "1KiB"), (1023 << 20, "1023MiB")] {
            assert_eq!(<Size>::show(&bytes).unwrap(), text);
        }
        refused::<Size>(&[
            "",
            "0",
            "-1",
            "1MB",
            "1.5MiB",
            "MiB",
            "99999999999999999999",
            "99999999999GiB",
        ]);
    }

    #[test]
    fn times_have_units() {
        for (text, milliseconds) in [("0s", 0), ("500ms", 500), ("30s", 30_000), ("5min", 300_000)] {
            assert_eq!(Length::parse(text).unwrap(), Duration::from_millis(milliseconds));
        }
        assert_eq!(Length::show(&Duration::from_millis(1500)).unwrap(), "1500ms");
        refused::<Length>(&[
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1h",
            "86401s",
            "18446744073709551615min",
        ]);
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for address in ["127.0.0.1:0", "localhost:8080", "[::1]:50051"] {
            assert_eq!(Address::parse(address).unwrap(), address);
        }
        refused::<Address>(&["8080", ":8080", "localhost:", "localhost:65536", ""]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        refused::<Count<usize>>(&["0", "-1", "1.5", "many", ""]);
        refused::<Index>(&["-1", "x"]);
        refused::<Rate>(&["0", "-1", "inf", "NaN"]);
        refused::<Share>(&["-0.1", "1.1", "NaN", "half"]);
        refused::<Switch>(&["yes", "1", "True"]);
        refused::<Url>(&["127.0.0.1:4317", "ftp://host", "http://", "/path"]);
        refused::<Filter>(&["server=loudest"]);
        for url in ["http://127.0.0.1:4317", "https://host:4317"] {
            assert_eq!(Url::parse(url).unwrap(), url);
        }
        let error = Choice::<crate::config::LogFormat>::parse("xml").unwrap_err();
        assert_eq!(error, "expected one of text, json");
    }
}
