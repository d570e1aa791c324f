//! Image folders, a folder a class: `train/CLASS/…` and `val/CLASS/…` as ImageNet has them, and TinyImageNet, whose `val/`
//! has a table instead.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use model::ColorMode;
use model::image::{Limits, Pixels};

use super::decoding::decode;
use super::image_files::has_image_name;
use super::source::{Source, native_size, read_image};
use super::{DataError, DataSet, DataSetKind, NativeSize, Split, wordnet};

/// TinyImageNet's table of the classes of its validation images.
pub(super) const ANNOTATIONS: &str = "val_annotations.txt";

/// Folders in folders at most; links can make circles.
const MAX_DEPTH: usize = 16;

/// Images in files.
#[derive(Debug)]
struct Files {
    /// Paths are relative to it, so that a million of them stay small.
    folder: PathBuf,
    files: Vec<File>,
    native: NativeSize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    class: u32,
    path: Box<Path>,
}

/// Lists the images of a folder with `train/` and `val/` (or, where that isn't there, `test/`).
pub(super) fn open(folder: &Path) -> Result<DataSet, DataError> {
    let train = folder.join("train");
    let classes = folders(&train)?;
    if classes.is_empty() {
        return Err(no_classes(&train)?);
    }
    let named = ["val", "test"].map(|name| folder.join(name));
    let Some(test) = named.iter().find(|folder| folder.is_dir()) else {
        return Err(DataError::Inconsistent(format!(
            "{} has train/, but neither val/ nor test/ with images to test on",
            folder.display()
        )));
    };
    let tiny = test.join(ANNOTATIONS).is_file();
    let (kind, test) = if tiny {
        (DataSetKind::TinyImageNet, annotated(test, &classes)?)
    } else {
        (DataSetKind::ImageFolder, by_folder(test, &classes, false)?)
    };
    Ok(DataSet {
        kind,
        train: by_folder(&train, &classes, true)?,
        validation: None,
        test,
        class_names: class_names(folder, classes)?,
        source: folder.display().to_string(),
    })
}

/// The images of a split with a folder a class. Of the images to train on, every class has some.
fn by_folder(folder: &Path, classes: &[String], every: bool) -> Result<Split, DataError> {
    let found = folders(folder)?;
    if found.is_empty() {
        return Err(no_classes(folder)?);
    }
    let mut files = Vec::new();
    for name in &found {
        let class = class_of(name, classes).ok_or_else(|| {
            DataError::Inconsistent(format!(
                "{} is no class of the training images; train/ has {} classes, such as {}",
                folder.join(name).display(),
                classes.len(),
                classes.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
            ))
        })?;
        let before = files.len();
        walk(folder, Path::new(name), 0, &mut |path| {
            files.push(File { class, path });
        })?;
        if every && files.len() == before {
            return Err(DataError::Inconsistent(format!(
                "the class {} has no images: no file there has a name that ends in .jpg, .jpeg, .png, .webp, .bmp, .tif or \
                 .tiff",
                folder.join(name).display()
            )));
        }
    }
    split(folder, files)
}

/// TinyImageNet's validation images: all in one folder, with a table of file names and classes.
fn annotated(folder: &Path, classes: &[String]) -> Result<Split, DataError> {
    let path = folder.join(ANNOTATIONS);
    let table = read(&path)?;
    let invalid = |line: usize, reason: String| DataError::Invalid {
        name: path.display().to_string(),
        format: "TinyImageNet annotation",
        reason: format!("line {}: {reason}", line + 1),
    };
    let mut files = Vec::new();
    for (number, line) in table
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let mut fields = line.split('\t').map(str::trim);
        let (Some(file), Some(name)) = (fields.next(), fields.next()) else {
            return Err(invalid(
                number,
                "a file's name, a tab and a class are expected".into(),
            ));
        };
        let class = class_of(name, classes)
            .ok_or_else(|| invalid(number, format!("{name} is no class of the training images")))?;
        if file.contains(['/', '\\']) || file.is_empty() {
            return Err(invalid(
                number,
                format!("{file:?} is no name of a file in images/"),
            ));
        }
        let path = Path::new("images").join(file).into_boxed_path();
        files.push(File { class, path });
    }
    split(folder, files)
}

fn split(folder: &Path, mut files: Vec<File>) -> Result<Split, DataError> {
    if files.is_empty() {
        return Err(DataError::Inconsistent(format!(
            "{} holds no images",
            folder.display()
        )));
    }
    files.sort_unstable();
    let mut source = Files {
        folder: folder.into(),
        files,
        native: NativeSize::Varied,
    };
    source.native = native_size(&source);
    Ok(Split::of(source))
}

impl Source for Files {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, index: usize) -> usize {
        self.files.get(index).map_or(0, |file| file.class as usize)
    }

    fn name(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    fn encoded(&self, index: usize) -> Result<Option<Vec<u8>>, DataError> {
        let path = self.path(index);
        read_image(&path, Limits::default()).map(Some)
    }

    fn image(&self, index: usize, color: ColorMode) -> Result<Pixels, DataError> {
        let path = self.path(index);
        let bytes = read_image(&path, Limits::default())?;
        decode(&bytes, color, Limits::default()).map_err(|source| DataError::Image {
            name: path.display().to_string(),
            source,
        })
    }

    fn native(&self) -> NativeSize {
        self.native
    }
}

impl Files {
    fn path(&self, index: usize) -> PathBuf {
        match self.files.get(index) {
            Some(file) => self.folder.join(&file.path),
            None => self.folder.clone(),
        }
    }
}

fn class_of(name: &str, classes: &[String]) -> Option<u32> {
    let place = classes.binary_search_by(|class| class.as_str().cmp(name)).ok()?;
    u32::try_from(place).ok()
}

/// Why a split without class folders can't be used.
fn no_classes(folder: &Path) -> Result<DataError, DataError> {
    let entries = fs::read_dir(folder).map_err(failed(folder))?;
    let images = entries
        .filter(|entry| entry.as_ref().is_ok_and(|entry| has_image_name(&entry.path())))
        .count();
    let message = if images == 0 {
        format!("{} holds no folders of classes and no images", folder.display())
    } else {
        format!(
            "{folder} holds {images} images without folders of classes, so that nobody knows what they show. Images belong \
             in a folder a class, as in train/. ImageNet's validation images come in one folder with a list of their \
             classes; the script valprep.sh that torchvision's and PyTorch's ImageNet examples point to moves them",
            folder = folder.display()
        )
    };
    Ok(DataError::Inconsistent(message))
}

/// Whether a folder has folders of classes.
pub(super) fn has_classes(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.any(|path| path.is_dir() && !is_hidden(&path))
}

/// The names of the folders in a folder, sorted, without hidden ones.
fn folders(folder: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if !path.is_dir() || is_hidden(&path) {
            continue;
        }
        match path.file_name().and_then(OsStr::to_str) {
            Some(name) => names.push(name.to_owned()),
            None => {
                return Err(DataError::Inconsistent(format!(
                    "the name of the folder {} isn't UTF-8, so that no class can be called by it",
                    path.display()
                )));
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Finds the images in a folder and the folders in it. Files with other names than images have are left out.
fn walk(
    root: &Path,
    relative: &Path,
    depth: usize,
    found: &mut impl FnMut(Box<Path>),
) -> Result<(), DataError> {
    let folder = root.join(relative);
    if depth > MAX_DEPTH {
        return Err(DataError::Inconsistent(format!(
            "{} lies more than {MAX_DEPTH} folders deep; perhaps a link leads back to a folder that it is in",
            folder.display()
        )));
    }
    for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
        let entry = entry.map_err(failed(&folder))?;
        let path = relative.join(entry.file_name());
        if is_hidden(&path) {
            continue;
        }
        let kind = entry.file_type().map_err(failed(&entry.path()))?;
        // A link is what it leads to; one that leads nowhere is found when the image is read.
        let is_folder = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
        if is_folder {
            walk(root, &path, depth + 1, found)?;
        } else if has_image_name(&path) {
            found(path.into_boxed_path());
        }
    }
    Ok(())
}

/// Such as those that macOS leaves beside files.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The classes' names: those of `words.txt` or of ImageNet where all folders are WordNet ids that it knows, else those of
/// the folders.
fn class_names(folder: &Path, classes: Vec<String>) -> Result<Vec<String>, DataError> {
    if !classes.iter().all(|class| wordnet::is_id(class)) {
        return Ok(classes);
    }
    let path = folder.join("words.txt");
    let words = if path.is_file() {
        read(&path)?
    } else {
        String::new()
    };
    let mut table = wordnet::imagenet();
    table.extend(wordnet::parse(&words));
    Ok(translated(&classes, &table).unwrap_or(classes))
}

fn translated(classes: &[String], table: &BTreeMap<&str, &str>) -> Option<Vec<String>> {
    classes
        .iter()
        .map(|class| table.get(class.as_str()).map(|&name| name.to_owned()))
        .collect()
}

fn read(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(failed(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |source| DataError::Read { path, source }
}

#[cfg(test)]
mod tests;
