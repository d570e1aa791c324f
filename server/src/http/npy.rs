//! NumPy's `.npy` files, version 1.0: a header, then the values. Read for stimuli, written for activations.

use bytes::Bytes;

use crate::error::ServerError;
use crate::inference::ElementType;
use crate::stimuli::{StimulusType, TensorStimuli};

/// What every file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// The header ends at a multiple of this.
const ALIGNMENT: usize = 64;

/// Whether a file says that it is one.
pub(super) fn is_npy(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// The header of an array in C order; bfloat16 has none.
pub(super) fn header(data_type: ElementType, shape: &[usize]) -> Option<Bytes> {
    let descr = match data_type {
        ElementType::Float32 => "<f4",
        ElementType::Float16 => "<f2",
        ElementType::Bfloat16 => return None,
    };
    let lengths: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let mut dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({lengths}), }}");
    let start = MAGIC.len() + 4;
    let length = (start + dictionary.len() + 1).next_multiple_of(ALIGNMENT);
    dictionary.extend(std::iter::repeat_n(' ', length - start - dictionary.len() - 1));
    dictionary.push('\n');
    let count = u16::try_from(dictionary.len()).ok()?;
    let header = [MAGIC, &[1, 0], &count.to_le_bytes(), dictionary.as_bytes()].concat();
    Some(header.into())
}

/// Reads an array of stimuli.
///
/// # Errors
/// [`ServerError::Tensor`] where it isn't float32 or uint8 in C order.
pub(super) fn read(file: &Bytes) -> Result<TensorStimuli, ServerError> {
    let (dictionary, start) = dictionary(file).ok_or_else(|| wrong("its header is damaged"))?;
    let data_type = match string(dictionary, "descr") {
        Some("<f4") => StimulusType::Float32,
        Some("|u1") => StimulusType::Uint8,
        Some(other) => {
            return Err(wrong(&format!(
                "its type is `{other}`, expected `<f4` (float32) or `|u1` (uint8)"
            )));
        }
        None => return Err(wrong("its header has no `descr`")),
    };
    if !value(dictionary, "fortran_order").is_some_and(|value| value.starts_with("False")) {
        return Err(wrong(
            "it is in Fortran order: `numpy.ascontiguousarray` brings it into C order",
        ));
    }
    let shape = shape(dictionary).ok_or_else(|| wrong("its header has no `shape` that can be read"))?;
    Ok(TensorStimuli {
        data_type,
        shape,
        data: file.slice(start..),
    })
}

/// The header's dictionary, and where the values begin.
fn dictionary(file: &[u8]) -> Option<(&str, usize)> {
    let rest = file.strip_prefix(MAGIC)?;
    let (length, start) = match *rest {
        [1, _, low, high, ..] => (usize::from(u16::from_le_bytes([low, high])), MAGIC.len() + 4),
        [2 | 3, _, a, b, c, d, ..] => (
            usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?,
            MAGIC.len() + 6,
        ),
        _ => return None,
    };
    let end = start.checked_add(length)?;
    Some((std::str::from_utf8(file.get(start..end)?).ok()?, end))
}

/// What follows a key.
fn value<'a>(dictionary: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = dictionary.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn string<'a>(dictionary: &'a str, key: &str) -> Option<&'a str> {
    Some(value(dictionary, key)?.strip_prefix('\'')?.split_once('\'')?.0)
}

fn shape(dictionary: &str) -> Option<Vec<u64>> {
    let (lengths, _) = value(dictionary, "shape")?.strip_prefix('(')?.split_once(')')?;
    let lengths = lengths
        .split(',')
        .map(str::trim)
        .filter(|length| !length.is_empty());
    lengths.map(|length| length.parse().ok()).collect()
}

fn wrong(problem: &str) -> ServerError {
    ServerError::Tensor(format!("the .npy file can't be used: {problem}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(dictionary: &str, data: &[u8]) -> Bytes {
        let length = u16::try_from(dictionary.len()).unwrap();
        [MAGIC, &[1, 0], &length.to_le_bytes(), dictionary.as_bytes(), data]
            .concat()
            .into()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for shape in [vec![3, 1, 4, 4], vec![7], vec![2, 5]] {
            let header = header(ElementType::Float32, &shape).unwrap();
            assert_eq!(header.len() % ALIGNMENT, 0);
            assert_eq!(header.last(), Some(&b'\n'));
            let read = read(&[&header[..], &[1, 2, 3, 4]].concat().into()).unwrap();
            assert_eq!(read.data_type, StimulusType::Float32);
            assert!(
                read.shape
                    .iter()
                    .copied()
                    .eq(shape.iter().map(|&length| length as u64))
            );
            assert_eq!(read.data, [1, 2, 3, 4][..]);
        }
        assert!(header(ElementType::Bfloat16, &[1]).is_none());
    }

    #[test]
    fn arrays_that_cannot_be_used_say_why() {
        for (dictionary, expected) in [
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
                "its type is `<f8`",
            ),
            (
                "{'descr': '|u1', 'fortran_order': True, 'shape': (1,), }",
                "Fortran order",
            ),
            (
                "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }",
                "no `shape`",
            ),
            ("{'fortran_order': False}", "no `descr`"),
        ] {
            let error = read(&file(dictionary, &[])).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(read(&Bytes::from_static(b"\x93NUMPY\x01\x00\xff\xff{")).is_err());
    }

    proptest! {
        #[test]
        fn no_file_makes_reading_panic(version in 0_u8..5, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let damaged = [MAGIC, &[version], &bytes].concat();
            let _ = read(&damaged.into());
        }

        #[test]
        fn no_dictionary_makes_reading_panic(text in "[{}'a-z:<>|(), 0-9]{0,80}") {
            let _ = read(&file(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({text}"), &[]));
            let _ = read(&file(&text, &[]));
        }
    }
}
