//! `trainer data`.
#![expect(clippy::print_stdout, reason = "prints its result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::LoadingArguments;
use crate::data::{DataSet, Inspection, SplitInspection};

/// Names of classes in the table at most; `--json` has all.
const SHOWN_CLASSES: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The data set, as for --data of other commands; without it, the part of Fashion-MNIST that the program carries.
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    #[command(flatten)]
    loading: LoadingArguments,
    /// Print JSON: all classes, and sizes in bytes.
    #[arg(long)]
    json: bool,
}

/// Fails where images can't be read, unless they would be left out.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let data = DataSet::open(arguments.path.as_deref()).context("can't open the data set")?;
    let bar = progress_bar(data.train.len() + data.test.len());
    let found = data.inspect(arguments.loading.workers(), |images| bar.inc(images as u64));
    bar.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        table(&found).iter().for_each(|line| println!("{line}"));
    }
    let (unreadable, unreachable) = (found.unreadable(), found.unreachable());
    if unreachable > 0 {
        tracing::error!(
            "{unreachable} files can't be read at all; that ends training, with --skip-corrupt too"
        );
        return Ok(ExitCode::FAILURE);
    }
    if unreadable == 0 || arguments.loading.skip_corrupt {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::error!("{unreadable} images can't be read; --skip-corrupt leaves them out of training");
    Ok(ExitCode::FAILURE)
}

fn table(found: &Inspection) -> Vec<String> {
    let shown = found.classes.iter().take(SHOWN_CLASSES).map(String::as_str);
    let names = shown.collect::<Vec<_>>().join("; ");
    let more = found.classes.len().saturating_sub(SHOWN_CLASSES);
    let more = if more == 0 {
        String::new()
    } else {
        format!("; {more} more")
    };
    let mut lines = vec![
        format!("{}: {}", found.source, found.kind),
        format!("  classes     {}: {names}{more}", found.classes.len()),
    ];
    for split in &found.splits {
        lines.extend(split_lines(split));
    }
    lines
}

fn split_lines(split: &SplitInspection) -> Vec<String> {
    let SplitInspection {
        fewest_per_class: fewest,
        most_per_class: most,
        ..
    } = split;
    let per_class = if fewest == most {
        format!("{most} a class")
    } else {
        format!("{fewest} to {most} a class")
    };
    let formats = split
        .formats
        .iter()
        .map(|(format, count)| format!("{count} {format}"));
    let mut lines = vec![
        split.name.to_owned(),
        format!("  images      {}, {per_class}", split.images),
        format!(
            "  formats     {}, {}",
            formats.collect::<Vec<_>>().join(", "),
            ByteSize::b(split.bytes).display().iec()
        ),
    ];
    if let Some(sizes) = split.sizes {
        let size = |(width, height): (u32, u32)| format!("{width}x{height}");
        lines.push(match sizes.distinct {
            1 => format!("  size        {}", size(sizes.largest)),
            distinct => format!(
                "  sizes       {} to {}, median {}, {distinct} different",
                size(sizes.smallest),
                size(sizes.largest),
                size(sizes.median)
            ),
        });
    }
    lines.push(format!("  unreadable  {}", split.unreadable.len()));
    let unreadable = split.unreadable.iter();
    lines.extend(unreadable.map(|image| format!("    {}: {}", image.image, image.reason)));
    lines
}

fn progress_bar(images: usize) -> ProgressBar {
    let bar = ProgressBar::new(images as u64);
    // An invalid template leaves indicatif's own style, which shows the same numbers.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} images, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}
