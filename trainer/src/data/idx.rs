//! The IDX format of the MNIST family: big-endian header, then bytes; gzip-compressed or not.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use super::{DataError, DataSet, DataSetKind, Images, embedded};

/// Images of one file at most: far more than any set of the family has, far less than memory.
const MAX_BYTES: u64 = 4 << 30;

/// The four files of a set.
pub(super) const STEMS: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The names of a file of a set: with a point before `idx`, too, as some unpackers write it.
fn names(stem: &str) -> [String; 4] {
    let pointed = stem.replace("-idx", ".idx");
    [
        stem.to_owned(),
        format!("{stem}.gz"),
        format!("{pointed}.gz"),
        pointed,
    ]
}

/// Reads a folder with the four files of a set of the MNIST family, each as it is or as `.gz`. Classes are named by
/// `class_names.txt` (a name a line) where the folder has one; those of Fashion-MNIST are known; others are called by
/// their numbers.
///
/// # Errors
/// [`DataError`] with the file that is missing or wrong.
pub(super) fn read_folder(folder: &Path) -> Result<DataSet, DataError> {
    let read = |stem: &'static str, dimensions| {
        let (name, bytes) = open(folder, stem)?;
        parse(&name, bytes, dimensions)
    };
    let train = join(read(STEMS[0], 3)?, read(STEMS[1], 1)?)?;
    let test = join(read(STEMS[2], 3)?, read(STEMS[3], 1)?)?;
    let class_names = class_names(folder, &train, &test)?;
    dataset(
        DataSetKind::Idx,
        (train, test),
        class_names,
        folder.display().to_string(),
    )
}

/// The first of the files of a set that is in a folder.
pub(super) fn present(folder: &Path) -> Option<String> {
    STEMS
        .into_iter()
        .flat_map(names)
        .find(|name| folder.join(name).is_file())
}

/// Puts the parts of a set together and checks that they fit.
pub(super) fn dataset(
    kind: DataSetKind,
    (train, test): (Images, Images),
    class_names: Vec<String>,
    source: String,
) -> Result<DataSet, DataError> {
    if train.shape() != test.shape() {
        let message = format!(
            "training images are {:?}, test images {:?}",
            train.shape(),
            test.shape()
        );
        return Err(DataError::Inconsistent(message));
    }
    let highest = train
        .labels()
        .iter()
        .chain(test.labels())
        .max()
        .copied()
        .unwrap_or(0);
    if usize::from(highest) >= class_names.len() {
        let message = format!(
            "there is a label {highest}, but only {} class names",
            class_names.len()
        );
        return Err(DataError::Inconsistent(message));
    }
    Ok(DataSet {
        kind,
        train: train.named(&format!("the training images of {source}")).into(),
        validation: None,
        test: test.named(&format!("the test images of {source}")).into(),
        class_names,
        source,
    })
}

/// Reads an uncompressed or gzip-compressed IDX file of bytes with so many dimensions.
pub(super) fn parse(
    name: &str,
    reader: impl Read,
    dimensions: u8,
) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let invalid = |reason: String| DataError::Invalid {
        format: "IDX",
        name: name.into(),
        reason,
    };
    let truncated = |error: io::Error| invalid(format!("it ends too early or is damaged ({error})"));
    let mut reader = decompressed(reader).map_err(truncated)?;
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(truncated)?;
    if magic != [0, 0, 8, dimensions] {
        let expected = [0, 0, 8, dimensions];
        return Err(invalid(format!(
            "it starts with {magic:?}, bytes in {dimensions} dimensions with {expected:?}"
        )));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let mut length = [0; 4];
        reader.read_exact(&mut length).map_err(truncated)?;
        shape.push(u32::from_be_bytes(length) as usize);
    }
    let bytes = shape
        .iter()
        .try_fold(1_u64, |product, &length| product.checked_mul(length as u64));
    let bytes = match bytes {
        Some(bytes) if bytes <= MAX_BYTES => bytes,
        _ => {
            return Err(invalid(format!(
                "its shape {shape:?} is larger than {MAX_BYTES} bytes"
            )));
        }
    };
    // Grows with what is really there, so that a false header costs nothing.
    let mut values = Vec::new();
    reader
        .by_ref()
        .take(bytes)
        .read_to_end(&mut values)
        .map_err(truncated)?;
    if values.len() as u64 != bytes {
        return Err(invalid(format!(
            "it ends after {} of {bytes} bytes",
            values.len()
        )));
    }
    let mut rest = [0];
    match reader.read(&mut rest).map_err(truncated)? {
        0 => Ok((shape, values)),
        _ => Err(invalid(format!(
            "there is more after the {bytes} bytes of shape {shape:?}"
        ))),
    }
}

/// Images and their labels.
pub(super) fn join(
    (shape, pixels): (Vec<usize>, Vec<u8>),
    (_, labels): (Vec<usize>, Vec<u8>),
) -> Result<Images, DataError> {
    match shape.as_slice() {
        &[count, height, width] if count == labels.len() => Images::new(pixels, labels, (1, height, width)),
        _ => {
            let message = format!("images of shape {shape:?} have {} labels", labels.len());
            Err(DataError::Inconsistent(message))
        }
    }
}

fn open(folder: &Path, stem: &'static str) -> Result<(String, File), DataError> {
    for name in names(stem) {
        let path = folder.join(&name);
        match File::open(&path) {
            Ok(file) => return Ok((path.display().to_string(), file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DataError::Read { path, source }),
        }
    }
    Err(DataError::Missing {
        folder: folder.into(),
        stem,
    })
}

/// Tells gzip by its first two bytes.
fn decompressed(reader: impl Read) -> io::Result<Box<dyn Read>> {
    let mut all = Vec::new();
    BufReader::new(reader).read_to_end(&mut all)?;
    Ok(if all.starts_with(&[0x1f, 0x8b]) {
        Box::new(GzDecoder::new(io::Cursor::new(all)))
    } else {
        Box::new(io::Cursor::new(all))
    })
}

fn class_names(folder: &Path, train: &Images, test: &Images) -> Result<Vec<String>, DataError> {
    let path = folder.join("class_names.txt");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .lines()
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(Into::into)
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && embedded::begins_like(test)? => {
            Ok(embedded::CLASS_NAMES.map(str::to_owned).to_vec())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let highest = train
                .labels()
                .iter()
                .chain(test.labels())
                .max()
                .copied()
                .unwrap_or(0);
            Ok((0..=highest).map(|class| class.to_string()).collect())
        }
        Err(source) => Err(DataError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use model::ColorMode;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|length| length.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_and_plain_files_are_read_alike() {
        let bytes = idx(&[2, 1, 2], &[1, 2, 3, 4]);
        let expected = (vec![2, 1, 2], vec![1, 2, 3, 4]);
        assert_eq!(parse("plain", bytes.as_slice(), 3).unwrap(), expected);
        assert_eq!(parse("gzip", gzip(&bytes).as_slice(), 3).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let reason = |bytes: &[u8]| parse("f", bytes, 1).unwrap_err().to_string();
        assert!(reason(&idx(&[3], &[1, 2])).contains("ends after 2 of 3 bytes"));
        assert!(reason(&idx(&[1], &[1, 2])).contains("there is more after"));
        assert!(reason(&idx(&[1, 1], &[1])).contains("in 1 dimensions"));
        assert!(reason(b"").contains("ends too early"));
        let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
        assert!(
            parse("f", huge.as_slice(), 3)
                .unwrap_err()
                .to_string()
                .contains("larger than")
        );
        let mut damaged = gzip(&idx(&[100], &[7; 100]));
        damaged.truncate(20);
        assert!(reason(&damaged).contains("damaged"));
    }

    #[test]
    fn a_folder_is_read_with_its_class_names() {
        let folder = tempfile::tempdir().unwrap();
        for (stem, bytes) in STEMS.iter().zip([
            idx(&[2, 2, 2], &[0; 8]),
            idx(&[2], &[0, 1]),
            gzip(&idx(&[1, 2, 2], &[9; 4])),
            idx(&[1], &[2]),
        ]) {
            let suffix = if bytes.starts_with(&[0x1f]) { ".gz" } else { "" };
            std::fs::write(folder.path().join(format!("{stem}{suffix}")), bytes).unwrap();
        }
        let data = read_folder(folder.path()).unwrap();
        assert_eq!(data.class_names, ["0", "1", "2"]);
        assert_eq!(data.test.image(0, ColorMode::Grayscale).unwrap().data, [9; 4]);
        std::fs::write(folder.path().join("class_names.txt"), "a\nb\nc\n").unwrap();
        assert_eq!(read_folder(folder.path()).unwrap().class_names, ["a", "b", "c"]);
        std::fs::write(folder.path().join("class_names.txt"), "a\nb\n").unwrap();
        assert!(
            read_folder(folder.path())
                .unwrap_err()
                .to_string()
                .contains("only 2 class names")
        );
        std::fs::remove_file(folder.path().join(STEMS[1])).unwrap();
        assert!(
            matches!(read_folder(folder.path()), Err(DataError::Missing { stem, .. }) if stem == STEMS[1])
        );
    }

    #[test]
    fn names_with_a_point_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("train-images.idx3-ubyte"), idx(&[2, 1, 1], &[0; 2])).unwrap();
        std::fs::write(at("train-labels.idx1-ubyte.gz"), gzip(&idx(&[2], &[0, 1]))).unwrap();
        std::fs::write(at("t10k-images.idx3-ubyte"), idx(&[1, 1, 1], &[9])).unwrap();
        std::fs::write(at("t10k-labels.idx1-ubyte"), idx(&[1], &[1])).unwrap();
        assert_eq!(present(folder.path()).unwrap(), "train-images.idx3-ubyte");
        assert_eq!(read_folder(folder.path()).unwrap().train.len(), 2);
    }

    #[test]
    fn fashion_mnist_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/fashion-mnist");
        for stem in STEMS {
            let name = format!("{stem}.gz");
            std::fs::copy(source.join(&name), folder.path().join(&name)).unwrap();
        }
        assert_eq!(read_folder(folder.path()).unwrap().class_names[9], "Ankle boot");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse("f", bytes.as_slice(), 3);
        }
    }
}
