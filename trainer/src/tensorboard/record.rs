//! TFRecord: a record is its length, a checksum of that, its bytes, a checksum of them.

/// What is added to a checksum, so that those of data which holds checksums are none of the same form.
const MASK: u32 = 0xa282_ead8;

/// A record as it lies in a file.
pub(super) fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and masked.
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK)
}

/// The records of a file, or what is wrong with it.
#[cfg(test)]
pub(super) fn parse(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(12).ok_or("a record's head is torn")?;
        let length = [
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7],
        ];
        if number(&head[8..]) != masked(&length) {
            return Err("the checksum of a length is wrong");
        }
        let length = u64::from_le_bytes(length) as usize;
        let (data, rest) = rest.split_at_checked(length).ok_or("a record is torn")?;
        let (checksum, rest) = rest.split_at_checked(4).ok_or("a record's checksum is torn")?;
        if number(checksum) != masked(data) {
            return Err("the checksum of a record is wrong");
        }
        records.push(data.to_vec());
        bytes = rest;
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksums_are_those_of_tensorflow() {
        // The first record of every event file that TensorFlow 2 and PyTorch write begins so: 24 bytes of `brain.Event:2`
        // with a time.
        let length = 24_u64.to_le_bytes();
        assert_eq!(masked(&length).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    proptest! {
        #[test]
        fn records_are_read_back(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8)) {
            let file: Vec<u8> = records.iter().flat_map(|record| framed(record)).collect();
            prop_assert_eq!(parse(&file).unwrap(), records);
        }

        #[test]
        fn a_changed_byte_is_found(record in proptest::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>()) {
            let mut file = framed(&record);
            let at = at.index(file.len());
            file[at] ^= 1;
            prop_assert!(parse(&file).is_err());
        }
    }
}
