//! The data file: where each tensor goes, and the writing of it, one block at a time. A thread of its own prepares the
//! blocks, while this one writes and hashes those before them.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use proto::onnx::tensor_proto::DataLocation;
use proto::onnx::{StringStringEntryProto, TensorProto};

use super::{ALIGNMENT, DATA_FILE, EXTERNAL_BYTES};
use crate::error::ExportError;
use crate::lowering::Initializer;
use crate::weights::{Overflow, TensorData};

/// Blocks that are prepared ahead of the writing.
const BLOCKS_AHEAD: usize = 4;

/// Constants as they are stored: small ones in the graph's file, the others in the data file.
pub(super) struct StoredConstants<'a> {
    /// For the graph, in the order of the constants.
    pub(super) tensors: Vec<TensorProto>,
    /// Of the data file, in bytes.
    pub(super) length: u64,
    external: Vec<External<'a>>,
}

/// A constant in the data file.
struct External<'a> {
    name: &'a str,
    offset: u64,
    data: &'a TensorData<'a>,
}

/// Why the data file wasn't written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The operating system refused.
    Io(io::Error),
    /// A weight can't be stored.
    Weight(ExportError),
    /// The caller has stopped it.
    Stopped,
}

/// What the preparing thread hands over: bytes of the constant that begins at an offset, or why there are none.
type Block = Result<(u64, Vec<u8>), ExportError>;

/// Why the preparing thread ends early.
enum Ended {
    Overflow(Overflow),
    /// Nobody writes any more.
    Alone,
}

impl From<Overflow> for Ended {
    fn from(overflow: Overflow) -> Self {
        Self::Overflow(overflow)
    }
}

impl<'a> StoredConstants<'a> {
    /// Gives every constant its place.
    ///
    /// # Errors
    /// [`ExportError::Weight`] for a small constant that can't be stored in its type.
    pub(super) fn plan(initializers: &'a [Initializer<'a>]) -> Result<Self, ExportError> {
        let mut stored = Self {
            tensors: Vec::with_capacity(initializers.len()),
            length: 0,
            external: Vec::new(),
        };
        for initializer in initializers {
            let tensor = stored.place(initializer)?;
            stored.tensors.push(tensor);
        }
        Ok(stored)
    }

    fn place(&mut self, initializer: &'a Initializer<'a>) -> Result<TensorProto, ExportError> {
        let data = &initializer.data;
        let mut tensor = TensorProto {
            dims: initializer.shape.iter().map(|&length| length as i64).collect(),
            data_type: data.data_type().into(),
            name: initializer.name.clone(),
            ..TensorProto::default()
        };
        // Readers look at integers to learn shapes before they load any data.
        let integers = matches!(data, TensorData::Integers(_));
        if integers || data.byte_length() < EXTERNAL_BYTES {
            tensor.raw_data = data
                .bytes()
                .map_err(|overflow| weight_error(&initializer.name, overflow))?;
        } else {
            let length = data.byte_length() as u64;
            let offset = self.length.next_multiple_of(ALIGNMENT);
            tensor.data_location = DataLocation::External.into();
            tensor.external_data = vec![
                entry("location", &DATA_FILE),
                entry("offset", &offset),
                entry("length", &length),
            ];
            self.external.push(External {
                name: &initializer.name,
                offset,
                data,
            });
            self.length = offset + length;
        }
        Ok(tensor)
    }

    /// Writes the data file, and returns its BLAKE3 in hexadecimal. `progress` hears how many bytes are written, and can
    /// stop the writing.
    pub(super) fn write(
        &self,
        file: &File,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<String, WriteError> {
        let (prepared, blocks) = sync_channel(BLOCKS_AHEAD);
        let (used, spare) = channel();
        thread::scope(|scope| {
            scope.spawn(move || self.prepare(&prepared, &spare));
            // Takes the receiving end along: where the writing ends early, the other thread ends too.
            write_blocks(file, blocks, &used, progress)
        })
    }

    fn prepare(&self, prepared: &SyncSender<Block>, spare: &Receiver<Vec<u8>>) {
        for external in &self.external {
            let mut offset = external.offset;
            let ended = external.data.visit(&mut |block: &mut Vec<u8>| {
                let full = std::mem::replace(block, spare.try_recv().unwrap_or_default());
                let length = full.len() as u64;
                prepared.send(Ok((offset, full))).map_err(|_| Ended::Alone)?;
                offset += length;
                Ok(())
            });
            match ended {
                Ok(()) => {}
                Err(Ended::Overflow(overflow)) => {
                    // Where nobody hears it, there is another error already.
                    let _ = prepared.send(Err(weight_error(external.name, overflow)));
                    return;
                }
                Err(Ended::Alone) => return,
            }
        }
    }
}

fn write_blocks(
    mut file: &File,
    blocks: Receiver<Block>,
    used: &Sender<Vec<u8>>,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<String, WriteError> {
    let mut digest = blake3::Hasher::new();
    let mut position = 0;
    for block in blocks {
        let (offset, bytes) = block.map_err(WriteError::Weight)?;
        let padding = [0; ALIGNMENT as usize];
        for part in [&padding[..(offset - position) as usize], &bytes] {
            file.write_all(part).map_err(WriteError::Io)?;
            digest.update(part);
        }
        position = offset + bytes.len() as u64;
        // Where the other thread is done already, the buffer isn't needed any more.
        let _ = used.send(bytes);
        if progress(position).is_break() {
            return Err(WriteError::Stopped);
        }
    }
    Ok(digest.finalize().to_hex().to_string())
}

fn weight_error(tensor: &str, overflow: Overflow) -> ExportError {
    ExportError::Weight {
        tensor: tensor.into(),
        reason: overflow.to_string(),
    }
}

fn entry(key: &str, value: &dyn ToString) -> StringStringEntryProto {
    StringStringEntryProto {
        key: key.into(),
        value: value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(name: &str, count: usize) -> Initializer<'static> {
        Initializer {
            name: name.into(),
            shape: vec![count],
            data: TensorData::float32((0..count).map(|index| index as f32).collect()),
        }
    }

    #[test]
    fn large_tensors_begin_at_pages_and_small_ones_stay_in_the_graph() {
        let constants = [
            constant("a", 1500),
            constant("b", 3),
            constant("c", 1024),
            constant("d", 300),
        ];
        let stored = StoredConstants::plan(&constants).unwrap();
        let places: Vec<_> = stored
            .tensors
            .iter()
            .map(|tensor| {
                let value = |entry: &StringStringEntryProto| entry.value.clone();
                tensor.external_data.iter().map(value).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(places[0], [DATA_FILE, "0", "6000"]);
        assert_eq!(places[1], Vec::<String>::new());
        assert_eq!(places[2], [DATA_FILE, "8192", "4096"]);
        assert_eq!(places[3], [DATA_FILE, "12288", "1200"]);
        assert_eq!(stored.tensors[1].raw_data.len(), 12);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATA_FILE);
        let mut last = 0;
        let file = File::create(&path).unwrap();
        let digest = stored
            .write(&file, &mut |written| {
                last = written;
                ControlFlow::Continue(())
            })
            .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(digest, blake3::hash(&bytes).to_hex().to_string());
        assert_eq!((bytes.len() as u64, last), (stored.length, stored.length));
        assert_eq!(bytes[8192 + 4..8192 + 8], 1.0_f32.to_le_bytes());
        assert!(bytes[6000..8192].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn writing_can_be_stopped() {
        let constants = [constant("a", 1500), constant("b", 1500)];
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join(DATA_FILE)).unwrap();
        let stored = StoredConstants::plan(&constants).unwrap();
        let error = stored.write(&file, &mut |_| ControlFlow::Break(())).unwrap_err();
        assert!(matches!(error, WriteError::Stopped));
        assert_eq!(
            file.metadata().unwrap().len(),
            6000,
            "the second tensor isn't written"
        );
    }

    #[test]
    fn a_weight_that_cannot_be_stored_is_named() {
        let large = Initializer {
            name: "layer1.0.conv1/weights".into(),
            shape: vec![1000],
            data: TensorData::Floats {
                values: vec![1e6; 1000],
                element: model::WeightType::Fp16,
            },
        };
        let constants = [constant("a", 1500), large];
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join(DATA_FILE)).unwrap();
        let stored = StoredConstants::plan(&constants).unwrap();
        let error = stored
            .write(&file, &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        let WriteError::Weight(error) = error else {
            panic!("{error:?}");
        };
        assert!(error.to_string().contains("`layer1.0.conv1/weights`"), "{error}");
    }
}
