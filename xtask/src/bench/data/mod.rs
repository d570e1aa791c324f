//! `cargo xtask bench data`: images that are decoded and augmented a second, per core, beside Pillow and NumPy on the same
//! JPEGs.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::environment::Environment;
use super::measurements::output_of;
use super::metric::{Better, Metric};
use super::results;
use crate::{cargo, report, setup, workspace};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Photographs of 500x375 pixels
    #[arg(long, default_value = "256", value_name = "N", value_parser = clap::value_parser!(u16).range(64..))]
    images: u16,
    /// Processor time of each of three turns
    #[arg(long, default_value = "5", value_name = "S", value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
}

const TURNS: usize = 3;

/// Measures, prints the table and writes the file.
pub(crate) fn run(options: &Options) -> Result<()> {
    report::step("set-up");
    setup::set_up_as_before()?;
    let python = setup::prepare_data_benchmark()?;
    report::step("build");
    let [program] = cargo::build_with_benches(&["trainer"], &["data"], ["data"])?;
    let scripts = workspace::root().join("trainer/benches/data");
    let folder = workspace::bench_folder();
    let photographs = folder.join(format!("photographs-{}", options.images));
    std::fs::create_dir_all(&photographs).with_context(|| format!("can't make {}", photographs.display()))?;
    report::step("photographs");
    let make: [OsString; 3] = [
        scripts.join("make_photographs.py").into(),
        photographs.clone().into(),
        options.images.to_string().into(),
    ];
    let bytes = number(&output(python.command().args(make))?)?;
    report::line(&format!(
        "{} JPEGs of 500x375 pixels, {:.0} kB each",
        options.images,
        bytes / 1e3
    ));

    report::step("the trainer's loader, and Pillow and NumPy, in turns");
    let (mut ours, mut theirs) = (0.0_f64, 0.0_f64);
    for _ in 0..TURNS {
        ours = ours.max(loader(&program, &photographs, options.seconds)?);
        let pipeline: [OsString; 3] = [
            scripts.join("pillow_pipeline.py").into(),
            photographs.clone().into(),
            options.seconds.to_string().into(),
        ];
        theirs = theirs.max(number(&output(python.command().args(pipeline))?)?);
    }
    let metric = Metric::new("decode.images_per_second_per_core", ours, "images/s")
        .against("Pillow and NumPy", theirs, Better::Higher)
        .noting(format!("JPEGs of {:.0} kB", bytes / 1e3));
    std::fs::remove_dir_all(&photographs)
        .with_context(|| format!("can't remove {}", photographs.display()))?;
    results::publish(&[metric], &Environment::of_this_run(1), &folder.join("data.json"))
}

fn loader(program: &Path, photographs: &Path, seconds: u16) -> Result<f64> {
    let arguments: [OsString; 4] = [
        "--folder".into(),
        photographs.into(),
        "--seconds".into(),
        seconds.to_string().into(),
    ];
    number(&output_of(program, arguments)?)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("can't run Python")?;
    if !output.status.success() {
        bail!(
            "Python failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).context("Python printed no text")
}

fn number(printed: &str) -> Result<f64> {
    let number = printed
        .trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.with_context(|| format!("`{}` was printed, which is no number above 0", printed.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_above_0_count() {
        assert_eq!(number(" 12.5\n").unwrap(), 12.5);
        for wrong in ["", "0", "-1", "NaN", "inf", "warming up"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }
}
