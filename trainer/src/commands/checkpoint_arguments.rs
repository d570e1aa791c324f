//! What commands share that write a checkpoint: its name, what its header says beside the network, and the line that
//! describes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use model::{Architecture, Connectivity, class_names};

use crate::import::ImportPreprocessing;

/// What no tensor says of a network.
#[derive(Debug, clap::Args)]
pub(super) struct HeaderArguments {
    /// How images become the network's input. Networks that don't take colour images always use unit-range.
    #[arg(long, value_enum, default_value = "imagenet")]
    pub(super) preprocessing: ImportPreprocessing,
    /// Names of the classes in the order of the logits, a name a line.
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
}

impl HeaderArguments {
    /// The names in the file; none without a file.
    pub(super) fn class_names(&self) -> Result<Vec<String>> {
        let Some(path) = &self.class_names else {
            return Ok(Vec::new());
        };
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(class_names::parse(&text))
    }
}

/// Refuses a name for a checkpoint that other commands wouldn't take for one.
pub(super) fn check_extension(output: &Path) -> Result<()> {
    ensure!(
        output
            .extension()
            .is_some_and(|extension| extension == "safetensors"),
        "the output {} should end in .safetensors",
        output.display()
    );
    Ok(())
}

/// One line about a checkpoint that has been written.
pub(super) fn describe(path: &Path, architecture: &Architecture, digest: &str) -> String {
    let connectivity = match architecture.connectivity {
        Connectivity::Convolutional => "convolutional".to_owned(),
        Connectivity::LocallyConnected { n_first_conv: 0 } => "locally connected".to_owned(),
        Connectivity::LocallyConnected { n_first_conv } => {
            format!("locally connected after {n_first_conv} convolutions")
        }
    };
    format!(
        "{}: ResNet of {:?} blocks, width {}, {connectivity}, {}x{} input, {} classes, digest {digest}",
        path.display(),
        architecture.blocks,
        architecture.width,
        architecture.input.height,
        architecture.input.width,
        architecture.classes,
    )
}
