//! `trainer stimuli`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use image::ColorType;

use crate::cli::DataArguments;
use crate::data;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder to write to; it is made where it doesn't exist.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArguments,
    /// The first so many test images.
    #[arg(long, default_value = "16", value_name = "N")]
    images: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let data = data::load(arguments.data.data.as_deref()).context("can't load the data set")?;
    let folder = &arguments.output;
    fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let shape = data.test.shape();
    let (width, height) = (u32::try_from(shape.width)?, u32::try_from(shape.height)?);
    let color = if shape.channels == 1 {
        ColorType::L8
    } else {
        ColorType::Rgb8
    };
    let count = arguments.images.clamp(1, data.test.len());
    for (index, &label) in data.test.labels().iter().enumerate().take(count) {
        let class = data
            .class_names
            .get(usize::from(label))
            .map_or("", String::as_str);
        let path = folder.join(format!("{index:05}-{}.png", file_name(class)));
        image::save_buffer(&path, data.test.pixels(index), width, height, color)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    tracing::info!("{count} images in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// A class name with what file names can't hold replaced.
fn file_name(class: &str) -> String {
    let safe = |character: char| {
        if character.is_alphanumeric() || " _-.".contains(character) {
            character
        } else {
            '-'
        }
    };
    class.chars().map(safe).collect()
}
