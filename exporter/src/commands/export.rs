//! `exporter export`.

#![expect(clippy::print_stdout, reason = "the command's result")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use model::WeightType;

use crate::bundle::{ModelName, Version};
use crate::error::ExportError;
use crate::export::{ExportRequest, export};
use crate::selection::LayerSelection;

/// What shells expect of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The checkpoint.
    checkpoint: PathBuf,
    /// The model repository; made where it doesn't exist.
    #[arg(long, value_name = "REPO")]
    repository: PathBuf,
    /// The model's name: letters, digits, `.`, `_` and `-`.
    #[arg(long, value_name = "NAME")]
    model: ModelName,
    /// 1 or more; without it, one more than the highest version that is there.
    #[arg(long, value_name = "N")]
    model_version: Option<Version>,
    /// The layers to export, separated by commas; without it, all that there are.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    layers: Option<Vec<String>>,
    /// How weights are stored. fp16: half the bytes, and computed in half precision where the execution provider does
    /// that (CUDA); bf16: half the bytes, widened before every product, on any provider.
    #[arg(long, value_enum, default_value = "fp32", value_name = "TYPE")]
    weights: WeightChoice,
    /// Keep BatchNorm apart from the weights, so that convolutions' outputs before it can be exported too.
    #[arg(long)]
    keep_preactivations: bool,
    /// Names of the classes in the order of the logits, a name a line, in the place of the checkpoint's.
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WeightChoice {
    Fp32,
    Fp16,
    Bf16,
}

impl From<WeightChoice> for WeightType {
    fn from(choice: WeightChoice) -> Self {
        match choice {
            WeightChoice::Fp32 => Self::Fp32,
            WeightChoice::Fp16 => Self::Fp16,
            WeightChoice::Bf16 => Self::Bf16,
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let class_names = arguments.class_names.as_deref().map(class_names).transpose()?;
    let request = ExportRequest {
        checkpoint: arguments.checkpoint,
        repository: arguments.repository,
        model: arguments.model,
        version: arguments.model_version,
        selection: LayerSelection {
            names: arguments.layers,
            keep_preactivations: arguments.keep_preactivations,
        },
        weights: arguments.weights.into(),
        class_names,
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("can't handle Ctrl-C")?;

    let bar = progress_bar();
    let result = export(&request, &mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.written);
        if interrupted.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish_and_clear();
    let summary = match result {
        Err(error @ ExportError::Interrupted) => {
            tracing::warn!("{error}");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        other => other?,
    };
    println!("bundle      {}", summary.path.display());
    let names: Vec<_> = summary.layers.iter().map(|layer| layer.name.as_str()).collect();
    println!("layers      {}: {}", names.len(), names.join(", "));
    println!("parameters  {}", HumanCount(summary.parameters as u64));
    println!("size        {}", HumanBytes(summary.bytes));
    Ok(ExitCode::SUCCESS)
}

fn class_names(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    Ok(model::class_names::parse(&text))
}

fn progress_bar() -> ProgressBar {
    let template = "writing weights {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(0);
    // An invalid template leaves indicatif's own style, which shows a count of bytes.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
