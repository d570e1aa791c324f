//! A bundle: the folder `REPO/<model>/<version>` with [`MODEL_FILE`], an ONNX file whose metadata holds the manifest,
//! and [`DATA_FILE`], the weights, each at a multiple of [`ALIGNMENT`] so that readers map them into memory.

mod digest;
mod external_data;
mod publication;
mod reader;
mod validation;
mod verification;
mod writer;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use digest::data_digest;
pub use publication::{PendingBundle, Version};
pub use reader::Bundle;
pub(crate) use verification::attach;
pub(crate) use writer::write;

/// The graph and the manifest.
pub const MODEL_FILE: &str = "model.onnx";

/// The weights.
pub const DATA_FILE: &str = "model.onnx.data";

/// Every tensor in the data file begins at a multiple of so many bytes: a page.
pub const ALIGNMENT: u64 = 4096;

/// Float constants of so many bytes and more are in the data file.
pub const EXTERNAL_BYTES: usize = 1024;

/// The name of a model, and of its folder in a repository: letters, digits, `.`, `_` and `-`, not beginning with `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName(String);

/// A name that can't be that of a model.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "`{0}` can't be a model's name: use letters, digits, `.`, `_` and `-`, and begin with another character than `.`"
)]
pub struct ModelNameError(String);

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(name: &str) -> Result<Self, ModelNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(ModelNameError(name.into()));
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_hidden_are_refused() {
        for name in ["lc_resnet18-64px.v2", "A", "0"] {
            assert_eq!(name.parse::<ModelName>().unwrap().to_string(), name);
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "é", "a\0"] {
            assert_eq!(name.parse::<ModelName>(), Err(ModelNameError(name.into())));
        }
    }
}
