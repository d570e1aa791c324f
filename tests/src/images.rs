//! A small data set of real images: the beginning of each file of `data/fashion-mnist`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;

use crate::programs::in_checkout;

/// Writes the first `train` training and `test` test images, in the IDX format, to a folder that `--data` takes.
pub fn write(folder: &Path, train: u32, test: u32) {
    std::fs::create_dir_all(folder).unwrap();
    for (set, images) in [("train", train), ("t10k", test)] {
        for (file, bytes_per_item, header) in
            [("images-idx3-ubyte", 28 * 28, 16), ("labels-idx1-ubyte", 1, 8)]
        {
            let name = format!("{set}-{file}");
            let source = in_checkout(format!("data/fashion-mnist/{name}.gz"));
            let mut bytes = vec![0; header + images as usize * bytes_per_item];
            GzDecoder::new(File::open(source).unwrap())
                .read_exact(&mut bytes)
                .unwrap();
            // The number of items follows the type.
            bytes[4..8].copy_from_slice(&images.to_be_bytes());
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}
