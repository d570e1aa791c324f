//! The stimuli: PNG files of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use image::RgbImage;

/// One image to ask about.
#[derive(Clone, Debug)]
pub struct Stimulus {
    /// The file's name.
    pub name: String,
    /// The file's bytes, which the server decodes.
    pub file: Vec<u8>,
    /// The pixels, for drawing.
    pub image: RgbImage,
    /// The class by the file's name: `Ankle boot` of `00000-Ankle boot.png`.
    pub class: Option<String>,
}

impl Stimulus {
    /// Whether the file's name says that the image is of this class; nothing where it names no class.
    pub fn is_of_class(&self, class_name: &str) -> Option<bool> {
        self.class
            .as_ref()
            .map(|class| *class == in_file_name(class_name))
    }
}

/// Reads all PNG files of `folder`, ordered by name. Fails where there are none.
pub fn read_folder(folder: &Path) -> Result<Vec<Stimulus>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("can't read the folder {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()
        .with_context(|| format!("can't read the folder {}", folder.display()))?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
    });
    paths.sort();
    if paths.is_empty() {
        bail!("the folder {} holds no PNG files", folder.display());
    }
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Stimulus> {
    let file = fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let image = image::load_from_memory_with_format(&file, image::ImageFormat::Png)
        .with_context(|| format!("{} is no valid PNG file", path.display()))?
        .into_rgb8();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Stimulus {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        file,
        image,
        class: class_in_stem(&stem),
    })
}

/// The class in `NUMBER-CLASS`.
fn class_in_stem(stem: &str) -> Option<String> {
    let (number, class) = stem.split_once('-')?;
    let is_numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_numbered && !class.is_empty()).then(|| class.to_owned())
}

/// A class name as `trainer stimuli` writes it into file names.
fn in_file_name(class_name: &str) -> String {
    let safe = |character: char| {
        if character.is_alphanumeric() || " _-.".contains(character) {
            character
        } else {
            '-'
        }
    };
    class_name.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_image(folder: &Path, name: &str) {
        RgbImage::from_pixel(2, 3, image::Rgb([10, 20, 30]))
            .save(folder.join(name))
            .unwrap();
    }

    #[test]
    fn png_files_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        write_image(folder.path(), "00001-T-shirt-top.png");
        write_image(folder.path(), "00000-Ankle boot.png");
        fs::write(folder.path().join("notes.txt"), "no image").unwrap();
        let stimuli = read_folder(folder.path()).unwrap();
        let names: Vec<&str> = stimuli.iter().map(|stimulus| stimulus.name.as_str()).collect();
        assert_eq!(names, ["00000-Ankle boot.png", "00001-T-shirt-top.png"]);
        assert_eq!(stimuli[0].image.dimensions(), (2, 3));
        assert_eq!(stimuli[0].is_of_class("Ankle boot"), Some(true));
        assert_eq!(stimuli[0].is_of_class("Sandal"), Some(false));
        assert_eq!(stimuli[1].is_of_class("T-shirt/top"), Some(true));
    }

    #[test]
    fn a_name_without_a_number_names_no_class() {
        assert_eq!(class_in_stem("house-cat"), None);
        assert_eq!(class_in_stem("00001"), None);
        assert_eq!(class_in_stem("00001-"), None);
        assert_eq!(class_in_stem("7-Bag").as_deref(), Some("Bag"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            read_folder(folder.path())
                .unwrap_err()
                .to_string()
                .contains("holds no PNG files")
        );
        fs::write(folder.path().join("torn.png"), "no image").unwrap();
        assert!(
            read_folder(folder.path())
                .unwrap_err()
                .to_string()
                .contains("torn.png")
        );
    }
}
