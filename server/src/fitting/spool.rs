//! A layer's activations on the disk: gathered image by image, then read block by block, centred.
//!
//! The file has no name: the system removes it with the last handle, however the server ends.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use faer::{Mat, MatRef};

use super::FitError;

/// Activations that are gathered.
#[derive(Debug)]
pub struct Spool {
    layer: String,
    folder: PathBuf,
    file: File,
    features: usize,
    images: usize,
    /// Of every feature. In double precision, no number of float32 values overflows.
    sums: Vec<f64>,
}

/// Activations that are complete, less every feature's mean.
#[derive(Debug)]
pub struct Centred {
    layer: String,
    folder: PathBuf,
    file: File,
    features: usize,
    images: usize,
    mean: Vec<f64>,
    block: Mat<f64>,
    bytes: Vec<u8>,
}

impl Spool {
    /// An empty one of a layer of `features` values an image, in a file in `folder`.
    ///
    /// # Errors
    /// [`FitError::File`].
    pub fn new(folder: &Path, layer: String, features: usize) -> Result<Self, FitError> {
        Ok(Self {
            layer,
            folder: folder.into(),
            file: tempfile::tempfile_in(folder).map_err(FitError::file(folder))?,
            features,
            images: 0,
            sums: vec![0.0; features],
        })
    }

    /// The layer's name.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Values of one image.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Images so far.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Appends the values of some images, float32 and little-endian.
    ///
    /// # Errors
    /// [`FitError::NotFinite`], and [`FitError::File`] or [`FitError::DiskFull`] where they can't be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FitError> {
        for image in bytes.chunks_exact(size_of::<f32>() * self.features) {
            let mut is_finite = true;
            for (sum, value) in std::iter::zip(&mut self.sums, floats(image)) {
                is_finite &= value.is_finite();
                *sum += f64::from(value);
            }
            if !is_finite {
                return Err(FitError::NotFinite {
                    layer: self.layer.clone(),
                    image: self.images,
                });
            }
            self.images += 1;
        }
        self.file.write_all(bytes).map_err(FitError::file(&self.folder))
    }

    /// No more come.
    pub fn finish(self) -> Centred {
        let count = self.images.max(1) as f64;
        Centred {
            layer: self.layer,
            folder: self.folder,
            file: self.file,
            features: self.features,
            images: self.images,
            mean: self.sums.into_iter().map(|sum| sum / count).collect(),
            block: Mat::new(),
            bytes: Vec::new(),
        }
    }
}

impl Centred {
    /// The layer's name.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The folder that the file is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Values of one image.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How many images there are.
    pub fn images(&self) -> usize {
        self.images
    }

    /// What was taken off every feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Reads some features of some images: `[features, images]`. Blocks have the same memory, one after the other; the first
    /// should be the largest.
    ///
    /// # Errors
    /// [`FitError::File`].
    pub fn block(
        &mut self,
        features: Range<usize>,
        images: Range<usize>,
    ) -> Result<MatRef<'_, f64>, FitError> {
        let (rows, columns) = (features.len(), images.len());
        if self.block.nrows() < rows || self.block.ncols() < columns {
            // Before there is another.
            self.block = Mat::new();
            self.block = Mat::zeros(rows, columns);
        }
        let mean = &self.mean[features.clone()];
        self.bytes.resize(size_of::<f32>() * rows, 0);
        let mut block = self.block.as_mut().submatrix_mut(0, 0, rows, columns);
        for (column, image) in block.as_mut().col_iter_mut().zip(images) {
            let place = size_of::<f32>() * (image * self.features + features.start);
            let read = self
                .file
                .seek(SeekFrom::Start(place as u64))
                .and_then(|_| self.file.read_exact(&mut self.bytes));
            read.map_err(|error| FitError::file(&self.folder)(error))?;
            let centred =
                std::iter::zip(floats(&self.bytes), mean).map(|(value, mean)| f64::from(value) - mean);
            std::iter::zip(column.iter_mut(), centred).for_each(|(place, value)| *place = value);
        }
        Ok(self.block.submatrix(0, 0, rows, columns))
    }
}

/// Little-endian values.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (values, _) = bytes.as_chunks();
    values.iter().map(|&value| f32::from_le_bytes(value))
}
