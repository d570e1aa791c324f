//! From the tensors of a PyTorch network to a checkpoint. Locally connected weights of the authors' are
//! `[Cin, Cout, H_out, W_out, k, k]`; torchvision has none.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use model::checkpoint::{self, Dtype};
use model::network::{TensorRole, TensorSpec};
use model::{Architecture, CheckpointHeader, Convolution, Network};

use super::infer::{IMAGENET_CLASSES, architecture};
use super::source::Source;
use super::tensor::{ImportedTensor, StoredTensor};
use super::{ImportError, ImportOptions};
use crate::data::imagenet_class_names;

/// Imports a file of a PyTorch network's tensors and returns the header and the digest of the checkpoint.
///
/// # Errors
/// [`ImportError`] with the file's name; nothing is written then.
pub fn import(
    source: &Path,
    output: &Path,
    options: &ImportOptions,
) -> Result<(CheckpointHeader, String), ImportError> {
    let at = |error: ImportError| ImportError::At {
        path: source.into(),
        source: Box::new(error),
    };
    let opened = Source::open(source).map_err(at)?;
    let (header, tensors) = convert(&opened, source, options).map_err(at)?;
    let digest = checkpoint::write(output, &header, &tensors)?;
    Ok((header, digest))
}

type Tensors<'a> = Vec<(String, ImportedTensor<'a>)>;

fn convert<'a>(
    source: &'a Source,
    path: &Path,
    options: &ImportOptions,
) -> Result<(CheckpointHeader, Tensors<'a>), ImportError> {
    let architecture = architecture(&source.shapes(), options.input_size)?;
    let network = architecture.network()?;
    let tensors = tensors(source, &network)?;
    let preprocessing = options.preprocessing.of(architecture.input);
    let mut provenance = BTreeMap::new();
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
    provenance.insert("imported_from".into(), file.into());
    provenance.insert("imported_format".into(), source.format().into());
    if let Some(epoch) = source.epoch() {
        provenance.insert("epoch".into(), epoch.into());
    }
    let class_names = class_names(&architecture, options);
    Ok((
        CheckpointHeader {
            architecture,
            preprocessing,
            class_names,
            provenance,
        },
        tensors,
    ))
}

/// The names that were given, else those of ImageNet's classes for a network that seems to tell them apart.
fn class_names(architecture: &Architecture, options: &ImportOptions) -> Vec<String> {
    let given = &options.class_names;
    if !given.is_empty() || (architecture.classes, architecture.input.channels) != (IMAGENET_CLASSES, 3) {
        return given.clone();
    }
    tracing::info!(
        "the {IMAGENET_CLASSES} classes are taken to be ImageNet's and get their names, which --class-names changes"
    );
    imagenet_class_names()
}

fn tensors<'a>(source: &'a Source, network: &Network) -> Result<Tensors<'a>, ImportError> {
    let local: BTreeMap<String, &Convolution> = network
        .convolutions()
        .filter(|geometry| geometry.locally_connected)
        .map(|geometry| (geometry.weight_name(), geometry))
        .collect();
    let specs = network.tensors();
    let known: HashSet<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    if let Some(name) = source.shapes().into_keys().find(|name| !known.contains(name)) {
        return Err(ImportError::Network(format!(
            "there is a tensor `{name}`, which the network that the other tensors show doesn't have"
        )));
    }
    let imported = specs.into_iter().map(|spec| {
        let name = spec.name.clone();
        let geometry = local.get(&name).copied();
        Ok((name, tensor(source, spec, geometry)?))
    });
    imported.collect()
}

/// One tensor; `geometry` is that of a locally connected layer's weights.
fn tensor<'a>(
    source: &'a Source,
    spec: TensorSpec,
    geometry: Option<&Convolution>,
) -> Result<ImportedTensor<'a>, ImportError> {
    let Some(found) = source.tensor(&spec.name)? else {
        // PyTorch counts batches since version 0.4.1; torchvision's ImageNet weights are older. Nothing depends on them.
        if spec.role == TensorRole::BatchCount {
            return Ok(ImportedTensor::NoBatches);
        }
        return Err(ImportError::Network(format!(
            "there is no tensor `{}`, though the other tensors show a network that has it",
            spec.name
        )));
    };
    let (shape, order) = match geometry {
        // From (i, o, h, w, a, b) to (h, w, a, b, i, o).
        Some(geometry) => (authors_shape(geometry).to_vec(), vec![2, 3, 4, 5, 0, 1]),
        None => (spec.shape.clone(), (0..spec.shape.len()).collect()),
    };
    if found.shape != shape {
        return Err(ImportError::Network(format!(
            "`{}` has shape {:?}; the network that the other tensors show has {shape:?} (is --input-size right?)",
            spec.name, found.shape
        )));
    }
    let dtype = match spec.role {
        TensorRole::BatchCount => Dtype::I64,
        TensorRole::Parameter | TensorRole::RunningStatistic => Dtype::F32,
    };
    let stored = StoredTensor::new(&spec.name, &found, &order, dtype, spec.shape)?;
    Ok(ImportedTensor::Stored(stored))
}

/// The shape of a locally connected layer's weights in the authors' layout: `[Cin, Cout, H_out, W_out, k, k]`.
pub(crate) fn authors_shape(geometry: &Convolution) -> [usize; 6] {
    let (k, output) = (geometry.kernel_size, geometry.output);
    [
        geometry.in_channels,
        geometry.out_channels,
        output.height,
        output.width,
        k,
        k,
    ]
}
