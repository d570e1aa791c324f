//! Principal components as a projection's file, written block by block.
//!
//! Their signs are those of scikit-learn: the greatest value of every component is positive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use faer::{Accum, Mat};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Serialize;

use super::FitError;
use super::components::{Components, Directions, Report};
use super::plan::{self, Plan};
use super::product;
use super::spool::Centred;
use crate::projection::FITTED_TO;

/// Bytes that the header of a file takes at most, besides the layer's name.
const HEADER: u64 = 1 << 10;

const FLOAT: usize = size_of::<f32>();

/// The beginning of a safetensors file. The same fit writes the same bytes: entries have an order, which the library's own
/// type doesn't give them.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'a str, &'a str>,
    components: TensorInfo,
    mean: TensorInfo,
}

/// The bit of a float32's sign, in its last byte.
const SIGN: u8 = 0x80;

/// Bytes that a projection's file takes at most.
pub(super) fn size(layer: &str, features: usize, components: usize) -> u64 {
    // The mean is one more row.
    (FLOAT * features) as u64 * (components as u64 + 1) + HEADER + layer.len() as u64
}

/// Writes a projection's file in the activations' folder, without a name. Blocks are as long as `plan` says.
pub(super) fn write(
    activations: &mut Centred,
    components: &Components,
    plan: &Plan,
    checkpoint_digest: &str,
    report: &mut Report<'_>,
) -> Result<File, FitError> {
    let folder = activations.folder().to_owned();
    let failed = || FitError::file(folder.as_path());
    let mut file = tempfile::tempfile_in(&folder).map_err(failed())?;
    let (features, count) = (activations.features(), components.squares.len());
    let start = write_header(
        &mut file,
        activations.layer(),
        checkpoint_digest,
        (count, features),
    )
    .map_err(failed())?;
    // The value furthest from zero of every component so far.
    let mut furthest = vec![0.0_f64; count];
    let mut bytes = Vec::new();
    let length = match components.directions {
        // Nothing has to be read.
        Directions::Features(_) => features,
        Directions::Images(_) => plan.block,
    };
    let blocks = plan::blocks(features, length);
    let all = blocks.len();
    let mut output = match components.directions {
        Directions::Features(_) => Mat::new(),
        Directions::Images(_) => Mat::zeros(length, count),
    };
    for (done, range) in blocks.enumerate() {
        report(done as f64 / all as f64)?;
        let block = match &components.directions {
            Directions::Features(directions) => directions.subrows(range.start, range.len()),
            Directions::Images(weights) => {
                let images = activations.images();
                let input = activations.block(range.clone(), 0..images)?;
                let place = output.as_mut().subrows_mut(0, range.len());
                product::multiply(place, Accum::Replace, input, weights.as_ref());
                output.subrows(0, range.len())
            }
        };
        for (component, values) in block.col_iter().enumerate() {
            bytes.clear();
            for &value in values.iter() {
                if value.abs() > furthest[component].abs() {
                    furthest[component] = value;
                }
                bytes.extend_from_slice(&(value as f32).to_le_bytes());
            }
            let place = start + (FLOAT * (component * features + range.start)) as u64;
            write_at(&mut file, place, &bytes).map_err(failed())?;
        }
    }
    bytes.resize(FLOAT * features, 0);
    for (component, _) in furthest.iter().enumerate().filter(|(_, value)| **value < 0.0) {
        report(1.0)?;
        let place = start + (FLOAT * component * features) as u64;
        let read = file
            .seek(SeekFrom::Start(place))
            .and_then(|_| file.read_exact(&mut bytes));
        read.map_err(failed())?;
        bytes
            .iter_mut()
            .skip(FLOAT - 1)
            .step_by(FLOAT)
            .for_each(|byte| *byte ^= SIGN);
        write_at(&mut file, place, &bytes).map_err(failed())?;
    }
    let mean = activations.mean().iter();
    bytes.clear();
    bytes.extend(mean.flat_map(|&mean| (mean as f32).to_le_bytes()));
    write_at(&mut file, start + (FLOAT * count * features) as u64, &bytes).map_err(failed())?;
    Ok(file)
}

/// Writes the beginning of the file; returns how long it is.
fn write_header(
    file: &mut File,
    layer: &str,
    checkpoint_digest: &str,
    (components, features): (usize, usize),
) -> io::Result<u64> {
    let end = FLOAT * components * features;
    let tensor = |shape: Vec<usize>, begin, end| TensorInfo {
        dtype: Dtype::F32,
        shape,
        data_offsets: (begin, end),
    };
    let header = Header {
        metadata: BTreeMap::from([("layer", layer), (FITTED_TO, checkpoint_digest)]),
        components: tensor(vec![components, features], 0, end),
        mean: tensor(vec![features], end, end + FLOAT * features),
    };
    let mut header = serde_json::to_vec(&header)?;
    // What follows has to be aligned.
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    Ok((size_of::<u64>() + header.len()) as u64)
}

fn write_at(file: &mut File, place: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(place))?;
    file.write_all(bytes)
}

/// Whether files can be made in a folder.
pub(super) fn check(folder: &Path) -> Result<(), FitError> {
    tempfile::tempfile_in(folder)
        .map(drop)
        .map_err(FitError::file(folder))
}
