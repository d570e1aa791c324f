//! `server token new`: a token for its owner, and the line for the file of tokens.

use std::fmt;

use rand::TryRng as _;
use rand::rngs::SysRng;
use thiserror::Error;

use super::tokens::{Entry, digest, to_hexadecimal};

/// A token that is shown once.
pub struct NewToken {
    token: String,
    line: String,
}

/// Why no token can be made.
#[derive(Debug, Error)]
pub enum NewTokenError {
    /// The name is no key of TOML.
    #[error("the name `{0}` can't be used: expected letters, digits, `-` and `_`")]
    Name(String),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// The line can't be written.
    #[error("the line can't be written: {0}")]
    Line(#[from] toml::ser::Error),
}

impl NewToken {
    /// Draws a token of 256 random bits.
    ///
    /// # Errors
    /// [`NewTokenError`].
    pub fn make(
        name: &str,
        models: Option<Vec<String>>,
        admin: bool,
        requests_per_second: Option<f64>,
    ) -> Result<Self, NewTokenError> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(NewTokenError::Name(name.into()));
        }
        let mut bits = [0; 32];
        SysRng
            .try_fill_bytes(&mut bits)
            .map_err(|error| NewTokenError::Random(error.to_string()))?;
        // Programs that look for secrets in published files know them by such a start.
        let token = format!("ventral_{}", to_hexadecimal(&bits));
        let entry = Entry {
            sha256: to_hexadecimal(&digest(&token)),
            models,
            admin,
            requests_per_second,
        };
        let line = format!("{name} = {}", toml::Value::try_from(&entry)?);
        Ok(Self { token, line })
    }
}

impl fmt::Display for NewToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "# The token, for its owner; it can't be shown again:")?;
        writeln!(formatter, "{}", self.token)?;
        writeln!(formatter, "# The line for the file of tokens (security.tokens):")?;
        writeln!(formatter, "{}", self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::tokens::Tokens;

    #[test]
    fn the_line_belongs_to_the_token() {
        let models = Some(vec!["a".to_owned(), "b\"c".to_owned()]);
        let new = NewToken::make("lab-1", models, true, Some(2.5)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &new.line).unwrap();
        let tokens = Tokens::read(file.path(), None).unwrap();
        let identity = tokens.identify(&new.token).unwrap();
        assert_eq!(identity.name, "lab-1");
        assert!(identity.is_admin && identity.may_use("b\"c") && !identity.may_use("c"));
        assert!(!new.line.contains(&new.token));
        let again = NewToken::make("lab-1", None, false, None).unwrap();
        assert_ne!(again.token, new.token);
        assert!(NewToken::make("two words", None, false, None).is_err());
    }
}
