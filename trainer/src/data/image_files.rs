//! Encoded images (JPEG, PNG, WebP, BMP, TIFF) as a network's input, preprocessed as the server does it.

use std::fs;
use std::path::{Path, PathBuf};

use image::ImageFormat;
use model::image::{ImageError, Limits};
use model::preprocessing::PreprocessingError;
use model::{InputShape, Preprocessing};
use tch::{Device, TchError, Tensor};
use thiserror::Error;

use super::decoding::decode;

/// Why image files can't be used.
#[derive(Debug, Error)]
pub enum ImageFileError {
    /// The operating system refused.
    #[error("can't read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without images.
    #[error(
        "{} holds no image: no file there has a name that ends in .jpg, .jpeg, .png, .webp, .bmp, .tif or .tiff",
        folder.display()
    )]
    Empty {
        /// The folder.
        folder: PathBuf,
    },
    /// A file that isn't an image, or not one that can be used.
    #[error("can't use {}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ImageError,
    },
    /// The preprocessing doesn't fit the network's input.
    #[error(transparent)]
    Preprocessing(#[from] PreprocessingError),
    /// libtorch refused.
    #[error("libtorch")]
    Torch(#[from] TchError),
}

/// The images of files and folders in their order, those of a folder sorted by name. In folders, files with other names
/// than images have are left out, and so are folders.
///
/// # Errors
/// [`ImageFileError::Empty`] for a folder without images, [`ImageFileError::Read`].
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ImageFileError> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(read(path))?;
        if metadata.is_dir() {
            files.extend(in_folder(path)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Images as a network's input, `[N, C, H, W]` float32.
///
/// # Errors
/// [`ImageFileError`] with the name of the first file that can't be used.
pub fn batch(
    files: &[PathBuf],
    preprocessing: &Preprocessing,
    input: InputShape,
    device: Device,
) -> Result<Tensor, ImageFileError> {
    let InputShape {
        channels,
        height,
        width,
    } = input;
    let length = channels * height * width;
    let mut values = vec![0.0_f32; files.len() * length];
    for (path, output) in files.iter().zip(values.chunks_exact_mut(length)) {
        let bytes = fs::read(path).map_err(read(path))?;
        let image = decode(&bytes, preprocessing.color, Limits::default());
        let pixels = image.and_then(|image| preprocessing.fit(image, input));
        let pixels = pixels.map_err(|source| {
            let path = path.clone();
            ImageFileError::Image { path, source }
        })?;
        preprocessing.normalise(&pixels, input, output)?;
    }
    let shape = [files.len(), channels, height, width].map(|length| length as i64);
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?.f_to(device)?)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, ImageFileError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read(folder))? {
        let path = entry.map_err(read(folder))?.path();
        // As links are followed everywhere else, they are here.
        if has_image_name(&path) && fs::metadata(&path).map_err(read(&path))?.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        let folder = folder.into();
        return Err(ImageFileError::Empty { folder });
    }
    files.sort();
    Ok(files)
}

pub(super) fn has_image_name(path: &Path) -> bool {
    let decoded = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ];
    let extension = path.extension().and_then(|extension| extension.to_str());
    let name_of = |format: &ImageFormat, extension: &str| {
        let mut names = format.extensions_str().iter();
        names.any(|name| name.eq_ignore_ascii_case(extension))
    };
    extension.is_some_and(|extension| decoded.iter().any(|format| name_of(format, extension)))
}

fn read(path: &Path) -> impl FnOnce(std::io::Error) -> ImageFileError {
    let path = path.to_owned();
    move |source| ImageFileError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_told_from_others() {
        for name in ["a.jpg", "a.JPEG", "a.png", "a.webp", "a.bmp", "a.tif", "b.x.TIFF"] {
            assert!(has_image_name(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "png", ".png", "a.gif", "a.png.partial"] {
            assert!(!has_image_name(Path::new(name)), "{name}");
        }
    }
}
