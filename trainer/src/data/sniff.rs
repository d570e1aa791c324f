//! Finds out what is at a path. Nothing is guessed: where files of two kinds lie, or of none, that is an error.

use std::fs;
use std::path::{Path, PathBuf};

use super::cifar::{self, Cifar};
use super::shards::Beside;
use super::{DataError, DataSet, idx, image_folder, shards};

/// What was found, and what tells it.
struct Found {
    what: Candidate,
    sign: String,
}

enum Candidate {
    Idx,
    CifarFolder(Cifar, PathBuf),
    CifarArchive(Cifar, PathBuf),
    Images,
    Shards(shards::Layout),
}

/// What is looked for, for whoever has something else.
const LOOKED_FOR: &str = "looked for were: an image folder (train/CLASS/ and val/CLASS/ with JPEG, PNG, WebP, BMP or TIFF \
                          files; TinyImageNet's val/val_annotations.txt); the binary version of CIFAR-10 or CIFAR-100 \
                          (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz, or their files); IDX files of the MNIST family \
                          (train-images-idx3-ubyte and the others, or .gz); tar shards (train/*.tar and val/*.tar, or names \
                          with train and val in them, or lists of them in train.txt and val.txt)";

/// Opens the data set at a path.
pub(super) fn open(path: &Path) -> Result<DataSet, DataError> {
    let metadata = fs::metadata(path).map_err(|source| DataError::Read {
        path: path.into(),
        source,
    })?;
    if !metadata.is_dir() {
        return open_file(path);
    }
    let mut found = candidates(path)?;
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => only.what.open(path),
        (Some(last), false) => {
            let signs: Vec<String> = found.into_iter().chain([last]).map(|found| found.sign).collect();
            Err(DataError::Inconsistent(format!(
                "{} holds more than one data set: {}; give the path of one of them, or keep them apart",
                path.display(),
                signs.join("; ")
            )))
        }
        (None, _) => Err(unknown(path)),
    }
}

fn open_file(path: &Path) -> Result<DataSet, DataError> {
    match cifar::sniff_archive(path) {
        Some(set) => cifar::read_archive(set, path),
        None => Err(DataError::Inconsistent(format!(
            "{} is a file, and no archive of CIFAR's binary version (other data sets are folders); {LOOKED_FOR}",
            path.display()
        ))),
    }
}

fn candidates(folder: &Path) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    if let Some(name) = idx::present(folder) {
        found.push(Found {
            what: Candidate::Idx,
            sign: format!("IDX files ({name})"),
        });
    }
    for set in Cifar::ALL {
        let signs = [set.names(), set.test()];
        let unpacked = signs.into_iter().find(|name| folder.join(name).is_file());
        let nested = folder.join(set.folder());
        let archive = folder.join(set.archive());
        if let Some(name) = unpacked {
            found.push(Found {
                what: Candidate::CifarFolder(set, folder.into()),
                sign: format!("CIFAR's files ({name})"),
            });
        }
        if nested.is_dir() {
            found.push(Found {
                sign: format!("CIFAR's folder {}", nested.display()),
                what: Candidate::CifarFolder(set, nested),
            });
        }
        if archive.is_file() {
            found.push(Found {
                sign: format!("CIFAR's archive {}", archive.display()),
                what: Candidate::CifarArchive(set, archive),
            });
        }
    }
    let train = folder.join("train");
    let images = image_folder::has_classes(&train);
    let beside = if images {
        Beside::ImageFolder
    } else {
        Beside::Nothing
    };
    let shards = match shards::find(folder, beside) {
        Err(DataError::Inconsistent(reason)) if images => {
            return Err(DataError::Inconsistent(format!(
                "{} holds an image folder (train/) and tar files that may be another data set: {reason}; keep them apart",
                folder.display()
            )));
        }
        shards => shards?,
    };
    let others = shards.is_some();
    if let Some(layout) = shards {
        found.push(Found {
            sign: format!("tar shards ({})", layout.sign()),
            what: Candidate::Shards(layout),
        });
    }
    // A folder without classes is an error of its own, unless it holds something else.
    if images || train.is_dir() && !others {
        found.push(Found {
            what: Candidate::Images,
            sign: "an image folder (train/)".into(),
        });
    }
    Ok(found)
}

impl Candidate {
    fn open(self, folder: &Path) -> Result<DataSet, DataError> {
        match self {
            Self::Idx => idx::read_folder(folder),
            Self::CifarFolder(set, folder) => cifar::read_folder(set, &folder),
            Self::CifarArchive(set, archive) => cifar::read_archive(set, &archive),
            Self::Images => image_folder::open(folder),
            Self::Shards(layout) => shards::open(folder, &layout),
        }
    }
}

fn unknown(folder: &Path) -> DataError {
    let pickled = [
        "cifar-10-batches-py",
        "cifar-100-python",
        "cifar-10-python.tar.gz",
        "cifar-100-python.tar.gz",
        "data_batch_1",
    ];
    let folder_name = folder.display();
    if let Some(name) = pickled.into_iter().find(|name| folder.join(name).exists()) {
        return DataError::Inconsistent(format!(
            "{folder_name} holds the Python version of CIFAR ({name}), whose pickles would run as programs; the binary \
             version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz) is read here"
        ));
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(5);
    let shown = match (names.is_empty(), more) {
        (true, _) => "it is empty".to_owned(),
        (_, 0) => format!("it holds {}", names.join(", ")),
        _ => format!("it holds {} and {more} more", names[..5].join(", ")),
    };
    DataError::Inconsistent(format!(
        "{folder_name} holds no data set that is known here: {shown}; {LOOKED_FOR}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    fn error(folder: &Path) -> String {
        open(folder).unwrap_err().to_string()
    }

    #[test]
    fn what_is_unknown_is_an_error_that_says_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let said = error(folder.path());
        assert!(
            said.contains("it is empty") && said.contains("val/CLASS/") && said.contains("train/*.tar"),
            "{said}"
        );
        for name in ["a", "b", "c", "d", "e", "f"] {
            write(folder.path().join(name), "").unwrap();
        }
        let said = error(folder.path());
        assert!(said.contains("a, b, c, d, e and 1 more"), "{said}");
        let said = error(&folder.path().join("a"));
        assert!(said.contains("is a file"), "{said}");
        assert!(matches!(
            open(&folder.path().join("missing")),
            Err(DataError::Read { .. })
        ));
    }

    #[test]
    fn two_data_sets_in_a_folder_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        create_dir_all(folder.path().join("train/cat")).unwrap();
        write(folder.path().join("train-images-idx3-ubyte"), "").unwrap();
        let said = error(folder.path());
        assert!(
            said.contains("more than one data set: IDX files") && said.contains("image folder"),
            "{said}"
        );
        let folder = tempfile::tempdir().unwrap();
        for set in Cifar::ALL {
            create_dir_all(folder.path().join(set.folder())).unwrap();
        }
        assert!(error(folder.path()).contains("more than one data set"));
    }

    #[test]
    fn archives_beside_imagenets_folders_are_no_shards() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for split in ["train", "val"] {
            let class = at(split).join("n01440764");
            create_dir_all(&class).unwrap();
            image::RgbImage::new(2, 2).save(class.join("0.png")).unwrap();
        }
        // As torchvision's ImageNet leaves them.
        for name in [
            "ILSVRC2012_img_train.tar",
            "ILSVRC2012_img_val.tar",
            "ILSVRC2012_bbox_train_v2.tar.gz",
            "ILSVRC2012_devkit_t12.tar.gz",
        ] {
            write(at(name), "").unwrap();
        }
        let data = open(folder.path()).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (1, 1));
        // An archive of the folder can't be used as shards.
        write(at("train.tar.gz"), "").unwrap();
        open(folder.path()).unwrap();
        write(at("train-0.tar"), "").unwrap();
        let said = error(folder.path());
        assert!(
            said.contains("an image folder (train/)") && said.contains("none to test on"),
            "{said}"
        );
        write(at("val-0.tar"), "").unwrap();
        let said = error(folder.path());
        assert!(
            said.contains("more than one data set: tar shards") && said.contains("an image folder"),
            "{said}"
        );
    }

    #[test]
    fn the_python_version_of_cifar_is_told() {
        let folder = tempfile::tempdir().unwrap();
        create_dir_all(folder.path().join("cifar-10-batches-py")).unwrap();
        assert!(error(folder.path()).contains("the Python version of CIFAR"));
    }
}
