//! Which shards hold the images to train on, and which those to test on.

use std::fs;
use std::path::{Path, PathBuf};

use super::DataError;

/// Shards that a line of a list may stand for at most.
const MAX_RANGE: usize = 1_000_000;

/// Lower-case beginning of the names of ImageNet's archives, which torchvision leaves beside the folders that it unpacks
/// them to.
const IMAGENET: &str = "ilsvrc2012_";

/// The shards of a data set.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) struct Layout {
    pub(super) train: Vec<PathBuf>,
    pub(super) test: Vec<PathBuf>,
}

impl Layout {
    /// What tells that there are shards.
    pub(in crate::data) fn sign(&self) -> String {
        let first = self.train.first().map(|path| path.display().to_string());
        first.unwrap_or_default()
    }
}

/// What other tar files there may be where shards are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) enum Beside {
    /// None: all of them are shards.
    Nothing,
    /// Those that an image folder was unpacked from: ImageNet's by their names, and compressed ones.
    ImageFolder,
}

/// The shards in a folder; none where it has none.
///
/// They are in `train/` and `val/`, or their names contain `train` and `val`, or `train.txt` and `val.txt` list them.
/// Without `val`, `test` is taken.
pub(in crate::data) fn find(folder: &Path, beside: Beside) -> Result<Option<Layout>, DataError> {
    let lists = folder.join("train.txt");
    // Without shards, other compressed archives may lie there.
    let here = in_folder(folder, beside, |name| name.contains("train"))?;
    let in_folder = |path: &Path| in_folder(path, beside, |_| true);
    let below = folder.join("train");
    let in_train = if below.is_dir() {
        in_folder(&below)?
    } else {
        Vec::new()
    };
    let listed = if lists.is_file() {
        list(&lists)?
    } else {
        Vec::new()
    };
    let kinds = [!here.is_empty(), !in_train.is_empty(), !listed.is_empty()];
    match kinds {
        [false, false, false] => Ok(None),
        [true, false, false] => by_name(folder, here).map(Some),
        [false, true, false] => {
            let test = first_of(folder, "", |path| path.is_dir().then(|| in_folder(path)))?;
            layout(folder, in_train, test)
        }
        [false, false, true] => {
            let test = first_of(folder, ".txt", |path| path.is_file().then(|| list(path)))?;
            layout(folder, listed, test)
        }
        _ => Err(DataError::Inconsistent(format!(
            "{} has tar shards in more than one way: beside each other, in train/, or listed in train.txt; one of them is \
             expected",
            folder.display()
        ))),
    }
}

/// The shards of the first of the names for images to test on.
fn first_of(
    folder: &Path,
    suffix: &str,
    shards: impl Fn(&Path) -> Option<Result<Vec<PathBuf>, DataError>>,
) -> Result<Vec<PathBuf>, DataError> {
    ["val", "validation", "test"]
        .iter()
        .find_map(|name| shards(&folder.join(format!("{name}{suffix}"))))
        .unwrap_or(Ok(Vec::new()))
}

fn by_name(folder: &Path, shards: Vec<PathBuf>) -> Result<Layout, DataError> {
    let (mut train, mut val, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for shard in shards {
        let name = shard
            .file_name()
            .map(|name| name.to_string_lossy().to_lowercase());
        let has = |word| name.as_ref().is_some_and(|name| name.contains(word));
        match [has("train"), has("val"), has("test")] {
            [true, false, false] => train.push(shard),
            [false, true, false] => val.push(shard),
            [false, false, true] => test.push(shard),
            _ => {
                return Err(DataError::Inconsistent(format!(
                    "the name of the shard {} doesn't say what its images are for; it should contain one of train, val, test, \
                     or the shards should lie in train/ and val/",
                    shard.display()
                )));
            }
        }
    }
    let test = if val.is_empty() { test } else { val };
    layout(folder, train, test)?.ok_or_else(|| nothing(folder, "train"))
}

fn layout(folder: &Path, train: Vec<PathBuf>, test: Vec<PathBuf>) -> Result<Option<Layout>, DataError> {
    if train.is_empty() {
        return Err(nothing(folder, "train on"));
    }
    if test.is_empty() {
        return Err(nothing(folder, "test on (val, or test)"));
    }
    Ok(Some(Layout { train, test }))
}

fn nothing(folder: &Path, purpose: &str) -> DataError {
    DataError::Inconsistent(format!(
        "{} holds tar shards, but none to {purpose}",
        folder.display()
    ))
}

/// The `.tar` files of a folder, sorted. Compressed ones are refused where their lower-case names tell that they are meant.
fn in_folder(
    folder: &Path,
    beside: Beside,
    is_meant: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Read {
        path: folder.into(),
        source,
    };
    let mut shards = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().to_lowercase();
        if beside == Beside::ImageFolder && name.starts_with(IMAGENET) {
            continue;
        }
        let compressed = name.ends_with(".tar.gz") || name.ends_with(".tgz");
        if compressed && beside == Beside::Nothing && is_meant(&name) && path.is_file() {
            return Err(DataError::Inconsistent(format!(
                "the shard {} is compressed, so that no image in it can be had without those before; unpack it with gunzip",
                path.display()
            )));
        }
        if name.ends_with(".tar") && path.is_file() {
            shards.push(path);
        }
    }
    shards.sort_unstable();
    Ok(shards)
}

/// The shards that a list names: a path a line, seen from the list's folder, with `{000..123}` for numbers; `#` begins a
/// comment. A text without any `.tar` is no such list.
fn list(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let text = fs::read(path).map_err(|source| DataError::Read {
        path: path.into(),
        source,
    })?;
    let text = String::from_utf8_lossy(&text);
    let folder = path.parent().unwrap_or(Path::new("."));
    let lines = text.lines().map(str::trim);
    let mut shards = Vec::new();
    for line in lines.filter(|line| line.ends_with(".tar") && !line.starts_with('#')) {
        let expanded = expand(line).ok_or_else(|| DataError::Invalid {
            name: path.display().to_string(),
            format: "shard list",
            reason: format!("`{line}` should have one range of numbers, such as {{000..123}}, or none"),
        })?;
        shards.extend(expanded.iter().map(|name| folder.join(name)));
    }
    Ok(shards)
}

/// The names that a name with `{000..123}` stands for.
fn expand(name: &str) -> Option<Vec<String>> {
    let Some((before, rest)) = name.split_once('{') else {
        return Some(vec![name.to_owned()]);
    };
    let (range, after) = rest.split_once('}')?;
    let (first, last) = range.split_once("..")?;
    let (low, high) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
    if low > high || high - low >= MAX_RANGE || after.contains('{') {
        return None;
    }
    let width = first.len();
    Some(
        (low..=high)
            .map(|number| format!("{before}{number:0width$}{after}"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(folder: &Path) -> Result<Option<Layout>, DataError> {
        super::find(folder, Beside::Nothing)
    }

    #[test]
    fn ranges_of_numbers_are_expanded() {
        assert_eq!(
            expand("a-{08..11}.tar").unwrap(),
            ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
        );
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
        for wrong in [
            "a-{2..1}.tar",
            "a-{1..}.tar",
            "a-{1.tar",
            "{0..1}-{0..1}.tar",
            "{0..99999999}.tar",
        ] {
            assert_eq!(expand(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shards_are_told_by_folder_by_name_and_by_list() {
        let touch = |path: PathBuf| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let names = |layout: &Layout| {
            let count = |shards: &[PathBuf]| shards.len();
            (count(&layout.train), count(&layout.test))
        };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(find(folder.path()).unwrap(), None);
        for name in [
            "in/train/0.tar",
            "in/train/1.tar",
            "in/val/0.tar",
            "in/test/0.tar",
            "in/test/1.tar",
        ] {
            touch(at(name));
        }
        assert_eq!(names(&find(&at("in")).unwrap().unwrap()), (2, 1));
        for name in [
            "by/imagenet-train-0.tar",
            "by/imagenet-train-1.tar",
            "by/imagenet-validation-0.tar",
        ] {
            touch(at(name));
        }
        assert_eq!(names(&find(&at("by")).unwrap().unwrap()), (2, 1));
        touch(at("by/other.tar"));
        assert!(
            find(&at("by"))
                .unwrap_err()
                .to_string()
                .contains("other.tar doesn't say")
        );
        touch(at("lists/train.txt"));
        assert_eq!(find(&at("lists")).unwrap(), None);
        fs::write(
            at("lists/train.txt"),
            "# shards\n../by/imagenet-train-{0..1}.tar\n",
        )
        .unwrap();
        assert!(
            find(&at("lists"))
                .unwrap_err()
                .to_string()
                .contains("none to test on")
        );
        fs::write(at("lists/val.txt"), "../by/imagenet-validation-0.tar\n").unwrap();
        let layout = find(&at("lists")).unwrap().unwrap();
        assert_eq!(names(&layout), (2, 1));
        assert!(layout.train[1].ends_with("by/imagenet-train-1.tar"));
        touch(at("lists/train/0.tar"));
        assert!(
            find(&at("lists"))
                .unwrap_err()
                .to_string()
                .contains("more than one way")
        );
        touch(at("gz/train-0.tar.gz"));
        assert!(find(&at("gz")).unwrap_err().to_string().contains("compressed"));
        touch(at("below/train/0.tgz"));
        assert!(find(&at("below")).unwrap_err().to_string().contains("compressed"));
    }

    #[test]
    fn names_of_folders_above_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let training = folder.path().join("training");
        fs::create_dir(&training).unwrap();
        fs::write(training.join("cifar-10-binary.tar.gz"), "").unwrap();
        assert_eq!(find(&training).unwrap(), None);
    }
}
