//! `cargo xtask licences`: every dependency's licence and origin against `deny.toml`.

mod policy;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{cargo, report, workspace};
use policy::Policy;

/// What `cargo metadata` says, as far as it counts here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// A package of the dependency graph, whatever platform it's for; `source` is missing in the checkout's own.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Names all packages that the policy doesn't allow, or says that there are none.
pub(crate) fn check() -> Result<()> {
    let policy = Policy::read(&workspace::root().join("deny.toml"))?;
    let packages = packages()?;
    let objections: Vec<String> = packages
        .iter()
        .filter_map(|package| objection(&policy, package))
        .collect();
    if !objections.is_empty() {
        bail!(
            "{} of {} packages don't fit deny.toml:\n  {}",
            objections.len(),
            packages.len(),
            objections.join("\n  ")
        );
    }
    report::line(&format!(
        "licences and origins of {} packages fit deny.toml",
        packages.len()
    ));
    Ok(())
}

fn packages() -> Result<Vec<Package>> {
    let output = cargo::command()
        .args(["metadata", "--format-version=1"])
        .current_dir(workspace::root())
        .output()
        .context("can't run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("can't read what cargo metadata wrote")?;
    Ok(metadata.packages)
}

/// Why the policy doesn't allow `package`; nothing where it does.
fn objection(policy: &Policy, package: &Package) -> Option<String> {
    let Package { name, version, .. } = package;
    if let Some(source) = &package.source
        && !policy::allows_source(source)
    {
        return Some(format!(
            "{name} {version} comes from {source}, not from a registry"
        ));
    }
    let Some(license) = &package.license else {
        return Some(format!("{name} {version} states no licence"));
    };
    match policy.allows_licence(license) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{name} {version} is licensed under {license}, which isn't allowed"
        )),
        Err(reason) => Some(format!(
            "{name} {version} states the licence {license:?}, which can't be read: {reason}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry+https://example.org/index";

    fn package(license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: "example".to_owned(),
            version: "1.2.3".to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
        }
    }

    #[test]
    fn objections_name_the_package_and_what_is_wrong_with_it() {
        let policy = Policy::parse("[licenses]\nallow = [\"MIT\"]\n").unwrap();
        let object = |license, source| objection(&policy, &package(license, source)).unwrap_or_default();
        assert_eq!(object(Some("MIT OR Apache-2.0"), Some(REGISTRY)), "");
        assert_eq!(object(Some("MIT"), None), "");
        assert_eq!(
            object(Some("GPL-3.0-only"), Some(REGISTRY)),
            "example 1.2.3 is licensed under GPL-3.0-only, which isn't allowed"
        );
        assert_eq!(object(None, Some(REGISTRY)), "example 1.2.3 states no licence");
        assert_eq!(
            object(Some("MIT"), Some("git+https://example.org/example#0123")),
            "example 1.2.3 comes from git+https://example.org/example#0123, not from a registry"
        );
        assert!(object(Some("MIT AND"), Some(REGISTRY)).contains("can't be read"));
    }
}
