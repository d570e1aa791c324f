//! The binary version of CIFAR-10 and CIFAR-100, as an archive or unpacked: records of one or two labels and 3,072 bytes of
//! pixels, colour by colour.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use model::class_names;
use tar::Archive;

use super::{DataError, DataSet, DataSetKind, Images};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Of one file, far more than any of them has.
const MAX_BYTES: u64 = 1 << 30;

/// Which of the two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cifar {
    Ten,
    Hundred,
}

impl Cifar {
    pub(super) const ALL: [Self; 2] = [Self::Ten, Self::Hundred];

    /// The name of the archive as it is downloaded.
    pub(super) fn archive(self) -> &'static str {
        match self {
            Self::Ten => "cifar-10-binary.tar.gz",
            Self::Hundred => "cifar-100-binary.tar.gz",
        }
    }

    /// The folder that the archive unpacks to.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Ten => "cifar-10-batches-bin",
            Self::Hundred => "cifar-100-binary",
        }
    }

    fn train(self) -> &'static [&'static str] {
        match self {
            Self::Ten => &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            Self::Hundred => &["train.bin"],
        }
    }

    pub(super) fn test(self) -> &'static str {
        match self {
            Self::Ten => "test_batch.bin",
            Self::Hundred => "test.bin",
        }
    }

    /// The file that names the classes, and no other set has.
    pub(super) fn names(self) -> &'static str {
        match self {
            Self::Ten => "batches.meta.txt",
            Self::Hundred => "fine_label_names.txt",
        }
    }

    fn classes(self) -> usize {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }

    /// Bytes before the pixels; the last is the label, that before it the label of CIFAR-100's superclass.
    fn labels(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }

    fn kind(self) -> DataSetKind {
        match self {
            Self::Ten => DataSetKind::Cifar10,
            Self::Hundred => DataSetKind::Cifar100,
        }
    }

    fn files(self) -> impl Iterator<Item = &'static str> {
        self.train().iter().copied().chain([self.test(), self.names()])
    }
}

/// Reads an unpacked archive.
pub(super) fn read_folder(set: Cifar, folder: &Path) -> Result<DataSet, DataError> {
    let mut files = BTreeMap::new();
    for name in set.files() {
        let path = folder.join(name);
        let read = |source| DataError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(read)?;
        files.insert(name, read_bounded(file).map_err(read)?);
    }
    data_set(set, &files, &folder.display().to_string())
}

/// Reads an archive as it is downloaded; nothing is unpacked.
pub(super) fn read_archive(set: Cifar, path: &Path) -> Result<DataSet, DataError> {
    let failed = |source| DataError::Read {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.into_owned();
        let wanted = name
            .file_name()
            .and_then(|name| set.files().find(|wanted| name.to_str() == Some(wanted)));
        if let Some(wanted) = wanted {
            files.insert(wanted, read_bounded(entry).map_err(failed)?);
        }
    }
    data_set(set, &files, &path.display().to_string())
}

/// Which of the sets an archive holds, by its first files; none where it is something else.
pub(super) fn sniff_archive(path: &Path) -> Option<Cifar> {
    let mut archive = Archive::new(GzDecoder::new(BufReader::new(File::open(path).ok()?)));
    for entry in archive.entries().ok()?.take(32) {
        let entry = entry.ok()?;
        let name = entry.path().ok()?.file_name()?.to_str()?.to_owned();
        let set = Cifar::ALL
            .into_iter()
            .find(|set| set.train().contains(&name.as_str()) || set.names() == name);
        if set.is_some() {
            return set;
        }
    }
    None
}

fn read_bounded(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn data_set(set: Cifar, files: &BTreeMap<&'static str, Vec<u8>>, source: &str) -> Result<DataSet, DataError> {
    let find = |name: &'static str| {
        files.get(name).map(Vec::as_slice).ok_or_else(|| {
            let wanted: Vec<&str> = set.files().collect();
            DataError::Inconsistent(format!(
                "{source} lacks {name}; a {} has {}",
                set.kind(),
                wanted.join(", ")
            ))
        })
    };
    let mut train = Records::default();
    for name in set.train() {
        train.read(set, name, find(name)?)?;
    }
    let mut test = Records::default();
    test.read(set, set.test(), find(set.test())?)?;
    let class_names = class_names::parse(&String::from_utf8_lossy(find(set.names())?));
    if class_names.len() != set.classes() {
        return Err(DataError::Inconsistent(format!(
            "{} of {source} names {} classes, not {}",
            set.names(),
            class_names.len(),
            set.classes()
        )));
    }
    Ok(DataSet {
        kind: set.kind(),
        train: train
            .images()?
            .named(&format!("the training images of {source}"))
            .into(),
        validation: None,
        test: test
            .images()?
            .named(&format!("the test images of {source}"))
            .into(),
        class_names,
        source: source.to_owned(),
    })
}

#[derive(Default)]
struct Records {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Records {
    fn read(&mut self, set: Cifar, name: &str, bytes: &[u8]) -> Result<(), DataError> {
        let invalid = |reason: String| DataError::Invalid {
            name: name.into(),
            format: "CIFAR",
            reason,
        };
        let length = set.labels() + 3 * PLANE;
        if bytes.is_empty() || !bytes.len().is_multiple_of(length) {
            return Err(invalid(format!(
                "its {} bytes aren't records of {length} bytes: it ends too early, or is another version",
                bytes.len()
            )));
        }
        self.pixels.reserve(bytes.len() / length * 3 * PLANE);
        for (index, record) in bytes.chunks_exact(length).enumerate() {
            let (labels, planes) = record.split_at(set.labels());
            let label = labels[labels.len() - 1];
            if usize::from(label) >= set.classes() {
                return Err(invalid(format!(
                    "record {index} has the label {label}; the highest is {}",
                    set.classes() - 1
                )));
            }
            self.labels.push(label);
            let pixel = |place: usize| [planes[place], planes[PLANE + place], planes[2 * PLANE + place]];
            self.pixels.extend((0..PLANE).flat_map(pixel));
        }
        Ok(())
    }

    fn images(self) -> Result<Images, DataError> {
        Images::new(self.pixels, self.labels, (3, SIDE, SIDE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSet;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use model::ColorMode;
    use proptest::prelude::*;

    /// One record an image: red is the label, green counts pixels, blue is 7.
    fn records(set: Cifar, labels: &[u8]) -> Vec<u8> {
        let record = |&label: &u8| {
            let labels = [vec![99; set.labels() - 1], vec![label]].concat();
            let green = (0..PLANE).map(|place| place as u8).collect();
            [labels, vec![label; PLANE], green, vec![7; PLANE]].concat()
        };
        labels.iter().flat_map(record).collect()
    }

    fn files(set: Cifar) -> Vec<(&'static str, Vec<u8>)> {
        let names: String = (0..set.classes())
            .map(|class| format!("class {class}\n"))
            .collect();
        let train = set.train().iter().enumerate();
        let mut files: Vec<_> = train
            .map(|(number, &name)| (name, records(set, &[number as u8, 9])))
            .collect();
        files.push((set.test(), records(set, &[3])));
        files.push((set.names(), names.into_bytes()));
        files
    }

    fn unpack(set: Cifar, folder: &Path) {
        for (name, bytes) in files(set) {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }

    fn pack(set: Cifar, path: &Path) {
        let mut builder = tar::Builder::new(GzEncoder::new(File::create(path).unwrap(), Compression::fast()));
        for (name, bytes) in files(set) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, format!("{}/{name}", set.folder()), bytes.as_slice())
                .unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn archives_and_folders_are_read_alike() {
        for set in Cifar::ALL {
            let folder = tempfile::tempdir().unwrap();
            let unpacked = folder.path().join("unpacked");
            std::fs::create_dir(&unpacked).unwrap();
            unpack(set, &unpacked);
            let archive = folder.path().join("downloaded.tar.gz");
            pack(set, &archive);
            for path in [unpacked, archive] {
                let data = DataSet::open(Some(&path)).unwrap();
                assert_eq!(data.kind, set.kind());
                assert_eq!((data.train.len(), data.test.len()), (2 * set.train().len(), 1));
                assert_eq!((data.train.label(1), data.test.label(0)), (9, 3));
                let pixels = data.test.image(0, ColorMode::Rgb).unwrap().data;
                assert_eq!(pixels[..9], [3, 0, 7, 3, 1, 7, 3, 2, 7]);
                assert_eq!(data.class_names[9], "class 9");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        unpack(Cifar::Ten, folder.path());
        let broken = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            let before = std::fs::read(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
            let error = DataSet::open(Some(folder.path())).unwrap_err().to_string();
            std::fs::write(path, before).unwrap();
            error
        };
        let truncated = &records(Cifar::Ten, &[1])[..3_000];
        assert!(broken("data_batch_3.bin", truncated).contains("data_batch_3.bin is not a valid CIFAR file"));
        assert!(broken("test_batch.bin", b"").contains("0 bytes"));
        assert!(broken("test_batch.bin", &records(Cifar::Ten, &[10])).contains("label 10"));
        assert!(broken("batches.meta.txt", b"a\nb").contains("names 2 classes, not 10"));
        std::fs::remove_file(folder.path().join("data_batch_4.bin")).unwrap();
        let error = format!("{:?}", DataSet::open(Some(folder.path())).unwrap_err());
        assert!(error.contains("data_batch_4.bin"), "{error}");
    }

    #[test]
    fn an_archive_that_ends_too_early_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cifar-10-binary.tar.gz");
        pack(Cifar::Ten, &path);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_archive(Cifar::Ten, &path).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..7000)) {
            for set in Cifar::ALL {
                let mut records = Records::default();
                if records.read(set, "f", &bytes).is_ok() {
                    prop_assert_eq!(records.labels.len() * 3 * PLANE, records.pixels.len());
                }
            }
        }
    }
}
