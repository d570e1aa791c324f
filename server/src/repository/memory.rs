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
    let by_inode = resident_by_inode(&mappings);
    let resident = |bundle: &Arc<Bundle>| {
        let inodes = bundle.weight_files.inodes();
        (bundle.id, inodes.filter_map(|inode| by_inode.get(&inode)).sum())
    };
    bundles.iter().map(resident).collect()
}

/// Bytes in memory by the inode of the mapped file. A page that is mapped several times counts once in all: `Pss` divides
/// it by the number of its mappings.
fn resident_by_inode(mappings: &str) -> HashMap<u64, u64> {
    let mut resident = HashMap::new();
    let mut inode = 0;
    for line in mappings.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Pss:") => {
                let kibibytes = words.next().and_then(|number| number.parse::<u64>().ok());
                *resident.entry(inode).or_default() += kibibytes.unwrap_or(0) * 1024;
            }
            // `7f30-7f50 r--p 00000000 fe:00 1234 /path`
            Some(first) if !first.ends_with(':') => {
                inode = words.nth(3).and_then(|inode| inode.parse().ok()).unwrap_or(0);
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
        let resident = resident_by_inode(mappings);
        assert_eq!(resident[&1234], 8 * 1024);
        assert_eq!(resident.get(&0), Some(&(100 * 1024)));
    }
}
