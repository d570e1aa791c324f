//! Where a run's settings begin: options that name a preset or a run file.

use std::path::PathBuf;

use anyhow::Result;

use crate::presets;
use crate::run::{Run, file};

/// What the other options are laid over.
#[derive(Debug, clap::Args)]
pub(super) struct RecipeArguments {
    /// Begin with the recipe of a network of the paper (`trainer presets` lists them); other options change it.
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,
    /// Begin with a run file, such as the one that `trainer train` writes beside a checkpoint; other options change it.
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub(super) config: Option<PathBuf>,
}

impl RecipeArguments {
    /// The run to begin with.
    pub(super) fn run(&self) -> Result<Run> {
        match (&self.config, &self.preset) {
            (Some(path), _) => Ok(file::read(path)?),
            (None, Some(name)) => Ok(presets::find(name)?.run()),
            (None, None) => Ok(Run::default()),
        }
    }
}
