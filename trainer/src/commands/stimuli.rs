//! `trainer stimuli`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use image::ColorType;
use model::ColorMode;

use crate::cli::DataArguments;
use crate::data::{DataSet, NativeSize};

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
    let data = DataSet::open(arguments.data.data.as_deref()).context("can't open the data set")?;
    let folder = &arguments.output;
    fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", folder.display()))?;
    let (mode, color) = match data.test.native() {
        NativeSize::Uniform(shape) if shape.channels == 1 => (ColorMode::Grayscale, ColorType::L8),
        _ => (ColorMode::Rgb, ColorType::Rgb8),
    };
    let count = arguments.images.clamp(1, data.test.len());
    for index in 0..count {
        let class = data.class_names.get(data.test.label(index));
        let path = folder.join(format!(
            "{index:05}-{}.png",
            file_name(class.map_or("", String::as_str))
        ));
        let image = data.test.image(index, mode)?;
        image::save_buffer(&path, &image.data, image.width, image.height, color)
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
