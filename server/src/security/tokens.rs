//! Bearer tokens. The server knows their SHA-256 digests alone: tokens are 256 random bits, so that a digest gives
//! nothing away and needs no slow hash.
//!
//! The file is TOML, a line a token: `lab = { sha256 = "…", models = ["a"], admin = true, requests_per_second = 50 }`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::rate::Rate;

/// The tokens that are known.
#[derive(Debug)]
pub struct Tokens {
    known: Vec<Token>,
}

/// A token's digest and whose it is.
#[derive(Debug)]
struct Token {
    digest: [u8; 32],
    identity: Arc<Identity>,
}

/// Who sends a request, and what they may do.
#[derive(Debug)]
pub struct Identity {
    /// The token's name.
    pub name: String,
    /// Whether they may load and unload models.
    pub is_admin: bool,
    /// The models that they may use; none: all.
    models: Option<Vec<String>>,
    /// How often they may send requests; none: as they like.
    pub(super) rate: Option<Rate>,
}

/// A token as the file has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// In hexadecimal digits.
    pub(super) sha256: String,
    /// Names of models; missing: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) models: Option<Vec<String>>,
    /// Whether it may load and unload models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) admin: bool,
    /// Missing: as the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests_per_second: Option<f64>,
}

/// Why the file can't be used.
#[derive(Debug, Error)]
pub enum TokensError {
    /// It can't be read.
    #[error("`{}` can't be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It isn't what `server token new` writes.
    #[error("`{}` is not a file of tokens, whose lines `server token new` makes", .path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: toml::de::Error,
    },
    /// A line that makes no sense.
    #[error("`{}`: token `{name}`: {reason}", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The token's name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Tokens {
    /// Reads the file. Tokens that state no rate get `default_rate`.
    ///
    /// # Errors
    /// [`TokensError`] that names the file and the token.
    pub fn read(path: &Path, default_rate: Option<f64>) -> Result<Self, TokensError> {
        let text = fs::read_to_string(path).map_err(|source| TokensError::Read {
            path: path.into(),
            source,
        })?;
        let entries: BTreeMap<String, Entry> = toml::from_str(&text).map_err(|source| TokensError::Toml {
            path: path.into(),
            source,
        })?;
        let mut known: Vec<Token> = Vec::with_capacity(entries.len());
        for (name, entry) in entries {
            let token = Token::new(name.clone(), entry, default_rate);
            let token =
                token.and_then(
                    |token| match known.iter().any(|other| other.digest == token.digest) {
                        true => Err("another has the same `sha256`"),
                        false => Ok(token),
                    },
                );
            known.push(token.map_err(|reason| TokensError::Entry {
                path: path.into(),
                name,
                reason,
            })?);
        }
        Ok(Self { known })
    }

    /// Whose token it is. Takes the same time for every token that is not known.
    pub fn identify(&self, token: &str) -> Option<&Arc<Identity>> {
        let digest = digest(token);
        let mut found = None;
        for known in &self.known {
            if bool::from(known.digest.ct_eq(&digest)) {
                found = Some(&known.identity);
            }
        }
        found
    }
}

impl Token {
    fn new(name: String, entry: Entry, default_rate: Option<f64>) -> Result<Self, &'static str> {
        let digest = from_hexadecimal(&entry.sha256).ok_or("`sha256` must have 64 hexadecimal digits")?;
        if entry.models.as_ref().is_some_and(Vec::is_empty) {
            return Err("`models` is empty: leave it out to allow all");
        }
        let rate = entry.requests_per_second.or(default_rate);
        if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err("`requests_per_second` must be a number above 0");
        }
        let identity = Identity {
            name,
            is_admin: entry.admin,
            models: entry.models,
            rate: rate.map(|rate| Rate::new(rate, Instant::now())),
        };
        Ok(Self {
            digest,
            identity: Arc::new(identity),
        })
    }
}

impl Identity {
    /// Whether they may use all models.
    pub fn may_use_all(&self) -> bool {
        self.models.is_none()
    }

    /// Whether they may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        match &self.models {
            None => true,
            Some(models) => models.iter().any(|name| name == model),
        }
    }
}

/// A token's digest.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

pub(super) fn to_hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hexadecimal(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Tokens, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Tokens::read(file.path(), None).map_err(|error| crate::error::chain(&error))
    }

    #[test]
    fn tokens_are_recognised_by_their_digests() {
        // The digest of "abc" that FIPS 180-2 gives.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let other = to_hexadecimal(&digest("other"));
        let tokens = read(&format!(
            "lab = {{ sha256 = \"{}\", models = [\"a\"] }}\nadmin = {{ sha256 = \"{other}\", admin = true }}",
            abc.to_uppercase()
        ))
        .unwrap();
        let lab = tokens.identify("abc").unwrap();
        assert_eq!(lab.name, "lab");
        assert!(lab.may_use("a") && !lab.may_use("b") && !lab.is_admin);
        let admin = tokens.identify("other").unwrap();
        assert!(admin.may_use("b") && admin.is_admin);
        for unknown in ["", "abcd", "ab", abc] {
            assert!(tokens.identify(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_named() {
        let digest = to_hexadecimal(&digest("x"));
        for (line, reason) in [
            (
                "lab = { sha256 = \"12\" }".to_owned(),
                "token `lab`: `sha256` must have 64",
            ),
            (
                format!("lab = {{ sha256 = \"{digest}\", models = [] }}"),
                "`models` is empty",
            ),
            (
                format!("lab = {{ sha256 = \"{digest}\", requests_per_second = 0 }}"),
                "above 0",
            ),
            (
                format!("a = {{ sha256 = \"{digest}\" }}\nb = {{ sha256 = \"{digest}\" }}"),
                "token `b`: another",
            ),
            (
                format!("lab = {{ sha256 = \"{digest}\", model = \"a\" }}"),
                "unknown field `model`",
            ),
            ("lab = 3".to_owned(), "not a file of tokens"),
        ] {
            let error = read(&line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
