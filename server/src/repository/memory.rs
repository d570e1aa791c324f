//! What the weights of bundles take of this machine's memory.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bundle::Bundle;

/// Bytes of each bundle's weights, by its id, that are in memory because this process has mapped them; none where the
/// system doesn't say.
pub async fn resident_weights(bundles: Vec<Arc<Bundle>>) -> HashMap<u64, u64> {
    // It fails only where the server is ending.
    let measured = tokio::task::spawn_blocking(move || measure(&bundles)).await;
    measured.unwrap_or_default()
}

fn measure(bundles: &[Arc<Bundle>]) -> HashMap<u64, u64> {
    let Ok(mappings) = std::fs::read_to_string("/proc/self/smaps") else {
        return HashMap::new();
    };
    let by_file = resident_by_file(&mappings);
    let resident = |bundle: &Arc<Bundle>| {
        let files = bundle.weight_files.numbers();
        (bundle.id, files.map(|file| resident_of(&by_file, file)).sum())
    };
    bundles.iter().map(resident).collect()
}

/// A mapped file: major and minor number of its device, and its inode.
type File = (u64, u64, u64);

/// What is in memory of a file of this device and inode. Some file systems give programs another device than they give the
/// mappings: there the inode alone has to do.
fn resident_of(by_file: &HashMap<File, u64>, (device, inode): (u64, u64)) -> u64 {
    // As Linux puts them together.
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
    let minor = (device & 0xff) | ((device >> 12) & !0xff);
    by_file.get(&(major, minor, inode)).copied().unwrap_or_else(|| {
        let alike = by_file.iter().filter(|((_, _, other), _)| *other == inode);
        alike.map(|(_, bytes)| bytes).sum()
    })
}

/// Bytes in memory by the mapped file. A page that is mapped several times counts once in all: `Pss` divides it by the number
/// of its mappings.
fn resident_by_file(mappings: &str) -> HashMap<File, u64> {
    let mut resident = HashMap::new();
    let mut file = (0, 0, 0);
    for line in mappings.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Pss:") => {
                let kibibytes = words.next().and_then(|number| number.parse::<u64>().ok());
                *resident.entry(file).or_default() += kibibytes.unwrap_or(0) * 1024;
            }
            // `7f30-7f50 r--p 00000000 fe:00 1234 /path`
            Some(first) if !first.ends_with(':') => {
                let device = words.nth(2).and_then(|device| device.split_once(':'));
                let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
                let (major, minor) = device.map_or((0, 0), |(major, minor)| (number(major), number(minor)));
                let inode = words.next().and_then(|inode| inode.parse().ok()).unwrap_or(0);
                file = (major, minor, inode);
            }
            _ => {}
        }
    }
    resident
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_of_a_file_are_added_up() {
        let mappings = "\
7f30-7f50 r--s 00000000 fe:00 1234                       /models/lc/1/model.onnx.data
Size:                 12 kB
Rss:                   8 kB
Pss:                   6 kB
VmFlags: rd mr mw me
7f60-7f70 rw-p 00000000 00:00 0
Pss:                 100 kB
7f80-7f90 r--s 00001000 fe:00 1234                       /models/lc/1/model.onnx.data (deleted)
Pss:                   2 kB
";
        let resident = resident_by_file(mappings);
        assert_eq!(resident[&(0xfe, 0, 1234)], 8 * 1024);
        assert_eq!(resident.get(&(0, 0, 0)), Some(&(100 * 1024)));
    }

    #[test]
    fn files_of_the_same_inode_are_told_apart_by_their_devices() {
        let by_file = HashMap::from([((0xfe, 1, 7), 100), ((8, 0x1234, 7), 20), ((8, 1, 9), 3)]);
        assert_eq!(resident_of(&by_file, (0xfe01, 7)), 100);
        assert_eq!(resident_of(&by_file, (0x0120_0834, 7)), 20);
        // Of another device, as some file systems say.
        assert_eq!(resident_of(&by_file, (0x2a, 9)), 3);
        assert_eq!(resident_of(&by_file, (0xfe01, 8)), 0);
    }
}
