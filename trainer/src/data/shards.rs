//! Tar shards as WebDataset writes them: `KEY.jpg` beside `KEY.cls` (a number) or `KEY.json` (`"label"`). An index of
//! offsets, made when they are opened, gives any image without unpacking.

mod index;
mod layout;

use std::path::Path;

use model::ColorMode;
use model::class_names;
use model::image::{Limits, Pixels};

use super::decoding::decode;
use super::source::{Source, native_size};
use super::{DataError, DataSet, DataSetKind, NativeSize, Split};
use index::Index;
pub(super) use layout::{Beside, Layout, find};

/// Files with a class name a line, in the order of the labels; the first that is there is taken.
const NAMES: [&str; 3] = ["class_names.txt", "classnames.txt", "classes.txt"];

/// Reads the shards' indices.
pub(super) fn open(folder: &Path, layout: &Layout) -> Result<DataSet, DataError> {
    let train = Index::read(&layout.train)?;
    let test = Index::read(&layout.test)?;
    let highest = train.highest_label().max(test.highest_label());
    let class_names = match NAMES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
    {
        Some(path) => {
            let bytes = std::fs::read(&path).map_err(|source| DataError::Read {
                path: path.clone(),
                source,
            })?;
            let names = class_names::parse(&String::from_utf8_lossy(&bytes));
            if highest >= names.len() {
                return Err(DataError::Inconsistent(format!(
                    "there is a label {highest}, but only {} names in {}",
                    names.len(),
                    path.display()
                )));
            }
            names
        }
        None => (0..=highest).map(|class| class.to_string()).collect(),
    };
    Ok(DataSet {
        kind: DataSetKind::Shards,
        train: split(train),
        validation: None,
        test: split(test),
        class_names,
        source: folder.display().to_string(),
    })
}

fn split(index: Index) -> Split {
    let mut source = Samples {
        index,
        native: NativeSize::Varied,
    };
    source.native = native_size(&source);
    Split::of(source)
}

/// The samples of some shards.
#[derive(Debug)]
struct Samples {
    index: Index,
    native: NativeSize,
}

impl Source for Samples {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn label(&self, index: usize) -> usize {
        self.index.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.index.name(index)
    }

    fn image(&self, index: usize, color: ColorMode) -> Result<Pixels, DataError> {
        let bytes = self.index.image(index)?;
        decode(&bytes, color, Limits::default()).map_err(|source| DataError::Image {
            name: self.name(index),
            source,
        })
    }

    fn encoded(&self, index: usize) -> Result<Option<Vec<u8>>, DataError> {
        self.index.image(index).map(Some)
    }

    fn native(&self) -> NativeSize {
        self.native
    }
}

#[cfg(test)]
mod tests;
