//! The part of `deny.toml` (cargo-deny's format) that `cargo xtask licences` applies.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

/// Licences that dependencies may have.
#[derive(Debug)]
pub(super) struct Policy {
    allowed: Vec<Licensee>,
}

#[derive(Deserialize)]
struct DenyFile {
    licenses: Licenses,
}

/// cargo-deny has further fields that change what is allowed. They are refused, since leaving them out silently would
/// make the two checks disagree.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
    #[serde(rename = "version")]
    _version: Option<u32>,
    #[serde(rename = "confidence-threshold")]
    _confidence_threshold: Option<f64>,
}

impl Policy {
    /// Reads `deny.toml`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} isn't valid", path.display()))
    }

    /// Reads the text of a `deny.toml`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let file: DenyFile = toml::from_str(text)?;
        let allowed = file
            .licenses
            .allow
            .iter()
            .map(|licence| {
                Licensee::parse(licence).with_context(|| format!("licenses.allow holds {licence:?}"))
            })
            .collect::<Result<_>>()?;
        Ok(Self { allowed })
    }

    /// Whether some choice that the SPDX expression leaves is made of allowed licences. Reads the old form with
    /// slashes too. An error says what is wrong with the expression.
    pub(super) fn allows_licence(&self, expression: &str) -> Result<bool, String> {
        let parsed =
            Expression::parse_mode(expression, ParseMode::LAX).map_err(|error| error.reason.to_string())?;
        Ok(parsed.evaluate(|requirement| self.allowed.iter().any(|licence| licence.satisfies(requirement))))
    }
}

/// Whether packages may come from there: from a registry, where a version never changes, and not from git.
pub(super) fn allows_source(source: &str) -> bool {
    source.starts_with("registry+") || source.starts_with("sparse+")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::parse(
            "[licenses]\nversion = 2\nallow = [\"MIT\", \"BSD-3-Clause\", \"Apache-2.0 WITH LLVM-exception\"]\n\
             [sources]\nunknown-git = \"deny\"\n",
        )
        .unwrap()
    }

    #[test]
    fn one_allowed_choice_suffices_and_every_part_of_a_sum_is_needed() {
        for (expression, allowed) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT AND BSD-3-Clause", true),
            ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", true),
            ("MIT OR GPL-3.0-only AND Zlib", true),
            ("(MIT OR GPL-3.0-only) AND Zlib", false),
        ] {
            assert_eq!(policy().allows_licence(expression), Ok(allowed), "{expression}");
        }
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert_eq!(
            policy().allows_licence("Apache-2.0 WITH LLVM-exception"),
            Ok(true)
        );
        assert_eq!(policy().allows_licence("Apache-2.0"), Ok(false));
        assert_eq!(policy().allows_licence("MIT WITH LLVM-exception"), Ok(false));
    }

    #[test]
    fn slashes_mean_or() {
        assert_eq!(policy().allows_licence("MIT/Zlib"), Ok(true));
        assert_eq!(policy().allows_licence("Zlib / MIT"), Ok(true));
        assert_eq!(policy().allows_licence("Zlib/GPL-3.0"), Ok(false));
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for expression in ["", "MIT OR", "No Such Licence", "(MIT"] {
            assert!(policy().allows_licence(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn packages_come_from_registries() {
        assert!(allows_source("registry+https://example.org/index"));
        assert!(allows_source("sparse+https://example.org/index/"));
        assert!(!allows_source("git+https://example.org/index"));
        assert!(!allows_source("path+file:///elsewhere"));
    }

    #[test]
    fn fields_that_would_be_ignored_are_refused() {
        let error = Policy::parse("[licenses]\nallow = []\nexceptions = []\n").unwrap_err();
        assert!(error.to_string().contains("exceptions"), "{error}");
        let error = Policy::parse("[licenses]\nallow = [\"No Such Licence\"]\n").unwrap_err();
        assert!(error.to_string().contains("No Such Licence"), "{error}");
    }
}
