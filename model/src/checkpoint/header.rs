//! What a checkpoint says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use crate::architecture::Architecture;
use crate::preprocessing::Preprocessing;

/// The version of the format that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The entry of the safetensors metadata that holds everything as JSON.
pub const METADATA_KEY: &str = "ventral";

/// What a checkpoint's weights are for, and where they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointHeader {
    /// The network that the weights belong to.
    pub architecture: Architecture,
    /// How images become the network's input.
    pub preprocessing: Preprocessing,
    /// Names of the classes in the order of the logits; empty where they aren't known.
    pub class_names: Vec<String>,
    /// Where the weights come from: program, data, seed, accuracy. Free entries, left out of the digest.
    pub provenance: BTreeMap<String, serde_json::Value>,
}

/// The metadata entry as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredHeader {
    pub(super) format_version: u32,
    pub(super) digest: String,
    #[serde(flatten)]
    pub(super) header: CheckpointFields,
}

/// As [`CheckpointHeader`], but flattened beside the version and the digest.
#[derive(Serialize, Deserialize)]
pub(super) struct CheckpointFields {
    pub(super) architecture: Architecture,
    pub(super) preprocessing: Preprocessing,
    pub(super) class_names: Vec<String>,
    pub(super) provenance: BTreeMap<String, serde_json::Value>,
}

impl CheckpointHeader {
    /// Checks the header's parts against each other.
    ///
    /// # Errors
    /// [`CheckpointError::Header`] with what doesn't fit.
    pub fn check(&self) -> Result<(), CheckpointError> {
        let classes = self.architecture.classes;
        if !self.class_names.is_empty() && self.class_names.len() != classes {
            let message = format!("{} class names for {classes} classes", self.class_names.len());
            return Err(CheckpointError::Header(message));
        }
        self.preprocessing
            .check(self.architecture.input)
            .map_err(|error| CheckpointError::Header(error.to_string()))
    }
}

impl StoredHeader {
    pub(super) fn new(header: &CheckpointHeader, digest: String) -> Self {
        let CheckpointHeader {
            architecture,
            preprocessing,
            class_names,
            provenance,
        } = header.clone();
        let header = CheckpointFields {
            architecture,
            preprocessing,
            class_names,
            provenance,
        };
        Self {
            format_version: FORMAT_VERSION,
            digest,
            header,
        }
    }

    /// Reads the version first, so that a newer file is told from a broken one.
    pub(super) fn parse(json: &str) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let invalid = |error: serde_json::Error| CheckpointError::Header(error.to_string());
        let Version { format_version } = serde_json::from_str(json).map_err(invalid)?;
        if format_version != FORMAT_VERSION {
            return Err(CheckpointError::Version {
                found: format_version,
            });
        }
        serde_json::from_str(json).map_err(invalid)
    }

    pub(super) fn into_parts(self) -> (CheckpointHeader, String) {
        let CheckpointFields {
            architecture,
            preprocessing,
            class_names,
            provenance,
        } = self.header;
        (
            CheckpointHeader {
                architecture,
                preprocessing,
                class_names,
                provenance,
            },
            self.digest,
        )
    }
}
