//! Reads checkpoints through a memory map: opening a 7 GB network reads its header only.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, View};

use super::digest::{Digest, describe, storage_order};
use super::error::CheckpointError;
use super::header::{CheckpointHeader, METADATA_KEY, StoredHeader};
use crate::mapped_file::MappedFile;
use crate::network::{Network, TensorRole};

/// Bytes that are read at a time where a whole checkpoint is.
const PART: usize = 4 << 20;

/// An open checkpoint, whose header and tensor shapes have been checked.
#[derive(Debug)]
pub struct Checkpoint {
    header: CheckpointHeader,
    network: Network,
    digest: String,
    tensors: TensorFile,
}

/// One tensor of an open file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Of the elements.
    pub dtype: Dtype,
    /// Outermost dimension first.
    pub shape: &'a [usize],
    /// Little-endian, row-major.
    pub bytes: &'a [u8],
}

/// A memory-mapped safetensors file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: MappedFile,
    metadata: HashMap<String, String>,
    index: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

impl Checkpoint {
    /// Opens a checkpoint and checks its header, and that its tensors are those of its architecture. The weights
    /// themselves aren't read; [`Checkpoint::verify`] does that.
    ///
    /// # Errors
    /// Any [`CheckpointError`], with the file's name.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let tensors = open_tensors(path)?;
        Self::from_tensors(tensors).map_err(|error| error.at(path))
    }

    fn from_tensors(tensors: TensorFile) -> Result<Self, CheckpointError> {
        let json = tensors
            .metadata
            .get(METADATA_KEY)
            .ok_or(CheckpointError::NotACheckpoint)?;
        let (header, digest) = StoredHeader::parse(json)?.into_parts();
        header.check()?;
        let network = header.architecture.network()?;
        check_tensors(&network, &tensors)?;
        Ok(Self {
            header,
            network,
            digest,
            tensors,
        })
    }

    /// What the checkpoint says about itself.
    pub fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// The checkpoint's network, layer by layer.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// BLAKE3 of everything that changes the network's activations, in hexadecimal; it identifies the trained network.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.tensors.path
    }

    /// A tensor of the architecture.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] where the architecture has no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        self.tensors.tensor(name)
    }

    /// Brings part of a tensor's bytes into memory, faster than touching them would.
    pub fn load(&self, part: &[u8]) {
        self.tensors.map.load(part);
    }

    /// Lets go of the memory that part of a tensor's bytes takes; it is read again when it is touched again. For those
    /// who go through a checkpoint that is larger than what they may use.
    pub fn release(&self, part: &[u8]) {
        self.tensors.release(part);
    }

    /// Reads everything, a part at a time, and compares it with the digest.
    ///
    /// # Errors
    /// [`CheckpointError::Digest`] where a byte has changed since the checkpoint was written.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        self.verify_while(|| true)?;
        Ok(())
    }

    /// As [`verify`](Self::verify), but asks now and then whether to go on; `false`: it wasn't asked to the end.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_while(&self, mut go_on: impl FnMut() -> bool) -> Result<bool, CheckpointError> {
        let views: Vec<_> = self
            .tensors
            .tensors()
            .map(|(name, view)| (name.to_owned(), view))
            .collect();
        let mut digest = Digest::new(&self.header)?;
        for (name, view) in storage_order(&views) {
            digest.begin_tensor(name, view.dtype, view.shape, view.bytes.len());
            for part in view.bytes.chunks(PART) {
                if !go_on() {
                    return Ok(false);
                }
                self.load(part);
                digest.update(part);
                self.release(part);
            }
        }
        let found = digest.finish();
        if found == self.digest {
            Ok(true)
        } else {
            let expected = self.digest.clone();
            Err(CheckpointError::Digest { found, expected }.at(&self.tensors.path))
        }
    }
}

/// Opens any safetensors file and checks its header: offsets, sizes and the file's length.
///
/// # Errors
/// [`CheckpointError::Io`] or [`CheckpointError::Format`], with the file's name.
pub fn open_tensors(path: &Path) -> Result<TensorFile, CheckpointError> {
    TensorFile::map(path).map_err(|error| error.at(path))
}

/// The elements of a little-endian float32 tensor.
pub fn f32_values(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> + '_ {
    // `chunks_exact(4)` gives slices of 4 bytes only.
    bytes
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
}

impl TensorFile {
    fn map(path: &Path) -> Result<Self, CheckpointError> {
        let map = MappedFile::open(path).map_err(CheckpointError::io("can't open the file"))?;
        let (header_length, header) = SafeTensors::read_metadata(&map).map_err(CheckpointError::Format)?;
        let start = header_length + 8;
        let index = header
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (from, to) = info.data_offsets;
                let entry = Entry {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: start + from..start + to,
                };
                (name, entry)
            })
            .collect();
        // Checks that the offsets cover the file exactly.
        SafeTensors::deserialize(&map).map_err(CheckpointError::Format)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self {
            path: path.into(),
            map,
            metadata,
            index,
        })
    }

    /// The entries of the file's metadata.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Every tensor, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.index
            .iter()
            .map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    /// Lets go of the memory that part of a tensor's bytes takes; it is read again when it is touched again.
    pub fn release(&self, part: &[u8]) {
        self.map.release(part);
    }

    /// One tensor.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] where the file has none of that name.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, CheckpointError> {
        match self.index.get(name) {
            Some(entry) => Ok(self.view(entry)),
            None => Err(CheckpointError::MissingTensor(name.into()).at(&self.path)),
        }
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        // `open` checked that every range lies in the map.
        TensorView {
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &self.map[entry.range.clone()],
        }
    }
}

impl View for TensorView<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn check_tensors(network: &Network, tensors: &TensorFile) -> Result<(), CheckpointError> {
    let specs = network.tensors();
    for spec in &specs {
        let entry = tensors
            .index
            .get(&spec.name)
            .ok_or_else(|| CheckpointError::MissingTensor(spec.name.clone()))?;
        let dtype = match spec.role {
            TensorRole::Parameter | TensorRole::RunningStatistic => Dtype::F32,
            TensorRole::BatchCount => Dtype::I64,
        };
        if entry.dtype != dtype || entry.shape != spec.shape {
            return Err(CheckpointError::WrongTensor {
                name: spec.name.clone(),
                found: describe(entry.dtype, &entry.shape),
                expected: describe(dtype, &spec.shape),
            });
        }
    }
    if tensors.index.len() > specs.len() {
        let known: std::collections::HashSet<_> = specs.iter().map(|spec| &spec.name).collect();
        if let Some(name) = tensors.index.keys().find(|name| !known.contains(name)) {
            return Err(CheckpointError::UnexpectedTensor(name.clone()));
        }
    }
    Ok(())
}
