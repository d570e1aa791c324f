//! `trainer dynamics`.
#![expect(clippy::print_stdout, reason = "prints what was found")]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::dynamics::convergence::{Curve, Experiment};
use crate::dynamics::plot;

/// Weights of one simulation, at most: beyond it lie weeks.
const MOST_WEIGHTS: usize = 10_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where dynamics.csv and dynamics.svg go; made where it isn't there.
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// Sides of the patches that neurons see.
    #[arg(long, default_value = "3,6,9", value_name = "K,K,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    kernels: Vec<u16>,
    /// How strongly weights are held at their first values.
    #[arg(long, default_value = "1e-1,1e-2,1e-3", value_name = "X,X,…", value_delimiter = ',', value_parser = gamma)]
    gammas: Vec<f64>,
    /// Patches that are presented, one after the other.
    #[arg(long, default_value = "2000", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    presentations: u32,
    /// Neurons that come to share their weights.
    #[arg(long, default_value = "100", value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    neurons: u32,
    /// Decides the first weights and the patches.
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let experiment = arguments.experiment()?;
    let folder = &arguments.output_dir;
    // What can't be written is refused before the simulation.
    fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let table = folder.join("dynamics.csv");
    let mut file = File::create(&table).with_context(|| format!("can't write {}", table.display()))?;

    let bar = progress_bar(experiment.total_presentations());
    let curves = experiment.run(|| bar.inc(1));
    bar.finish_and_clear();

    write_table(&mut file, &curves).with_context(|| format!("can't write {}", table.display()))?;
    let picture = folder.join("dynamics.svg");
    fs::write(&picture, plot::svg(&curves)?).with_context(|| format!("can't write {}", picture.display()))?;
    println!(
        "1/SNR² of the weights, before and after {} presentations:",
        arguments.presentations
    );
    for curve in &curves {
        if let (Some(first), Some(last)) = (curve.inverse_snr.first(), curve.inverse_snr.last()) {
            let (rule, kernel, gamma) = (curve.rule, curve.kernel_size, curve.gamma);
            println!("{rule}, γ = {gamma}, {kernel} x {kernel}: {first:.3} → {last:.3e}");
        }
    }
    println!("{}\n{}", table.display(), picture.display());
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn experiment(&self) -> Result<Experiment> {
        let neurons = self.neurons as usize;
        let mut kernel_sizes = Vec::new();
        for &kernel in &self.kernels {
            let kernel = usize::from(kernel);
            ensure!(
                neurons * kernel * kernel <= MOST_WEIGHTS,
                "{neurons} neurons that see {kernel} x {kernel} patches have more than {MOST_WEIGHTS} weights; choose \
                 fewer neurons or smaller kernels"
            );
            ensure!(!kernel_sizes.contains(&kernel), "--kernels names {kernel} twice");
            kernel_sizes.push(kernel);
        }
        for (index, gamma) in self.gammas.iter().enumerate() {
            ensure!(
                !self.gammas[..index].contains(gamma),
                "--gammas names {gamma} twice"
            );
        }
        Ok(Experiment {
            kernel_sizes,
            gammas: self.gammas.clone(),
            neurons,
            presentations: self.presentations as usize,
            seed: self.seed,
        })
    }
}

fn write_table(file: &mut File, curves: &[Curve]) -> io::Result<()> {
    let mut table = BufWriter::new(file);
    writeln!(table, "rule,kernel_size,gamma,presentations,inverse_squared_snr")?;
    for curve in curves {
        let (rule, kernel, gamma) = (curve.rule.name(), curve.kernel_size, curve.gamma);
        for (presentations, value) in curve.inverse_snr.iter().enumerate() {
            writeln!(table, "{rule},{kernel},{gamma},{presentations},{value:e}")?;
        }
    }
    table.flush()
}

fn progress_bar(presentations: usize) -> ProgressBar {
    let bar = ProgressBar::new(presentations as u64);
    // An invalid template leaves indicatif's own style, which shows the same numbers.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} presentations, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Parses γ.
fn gamma(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1.0 => Ok(value),
        _ => Err("expected a number above 0, and 1 at most".into()),
    }
}
