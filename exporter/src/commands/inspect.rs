//! `exporter inspect`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::bundle::Bundle;
use crate::inspect::{check_data, inspect};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The bundle: REPO/NAME/VERSION.
    bundle: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read the weights too, and compare their digest with the manifest's.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let bundle = Bundle::open(&arguments.bundle)?;
    let mut inspection = inspect(&bundle)?;
    if arguments.check {
        let bar = progress_bar();
        let checked = check_data(&bundle, &mut |read, total| {
            bar.set_length(total);
            bar.set_position(read);
        });
        bar.finish_and_clear();
        inspection.data_check = checked?;
    }
    let text = if arguments.json {
        let mut json = serde_json::to_string_pretty(&inspection).context("can't write JSON")?;
        json.push('\n');
        json
    } else {
        inspection.to_string()
    };
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("can't print")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn progress_bar() -> ProgressBar {
    let template = "checking the weights {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let bar = ProgressBar::new(0);
    // An invalid template leaves indicatif's own style, which shows a count of bytes.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
