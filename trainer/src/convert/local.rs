//! From a trained convolutional network to a locally connected one that computes the same (d'Ascoli et al. 2019): every
//! kernel is copied to all positions.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use model::checkpoint::{Dtype, TensorView, View};
use model::{Architecture, Checkpoint, CheckpointHeader, Connectivity, Convolution, Network};
use serde_json::{Value, json};
use tch::Device;

use super::ConvertError;
use crate::network::{NetworkError, TorchNetwork};

/// A converted checkpoint, whose tensors come into being one at a time, when their bytes are asked for.
pub struct Converted<'a> {
    /// Of the locally connected network.
    pub header: CheckpointHeader,
    /// Of the locally connected network, layer by layer.
    pub network: Network,
    /// Its tensors by name.
    pub tensors: Vec<(String, ConvertedTensor<'a>)>,
}

/// A tensor of a converted checkpoint.
pub enum ConvertedTensor<'a> {
    /// As it was.
    Same(TensorView<'a>),
    /// A kernel that every position gets.
    Copied(CopiedKernel<'a>),
}

/// A kernel `[Cout, Cin, k, k]` on its way to weights `[H_out, W_out, K, Cout]`.
pub struct CopiedKernel<'a> {
    kernel: TensorView<'a>,
    geometry: Convolution,
    shape: Vec<usize>,
}

/// The locally connected form of a checkpoint's network. The first `n_first_conv` convolutions stay convolutions.
///
/// # Errors
/// [`ConvertError`] where nothing would change, or a layer that is to be a convolution isn't one any more.
pub fn locally_connected(
    checkpoint: &Checkpoint,
    n_first_conv: usize,
) -> Result<Converted<'_>, ConvertError> {
    let source = checkpoint.network();
    let header = header(checkpoint, n_first_conv);
    let network = header.architecture.network()?;
    let mut tensors = Vec::new();
    let (mut copied, mut shared) = (0, 0);
    for (before, after) in source.units().zip(network.units()) {
        let (old, new) = (&before.convolution, &after.convolution);
        let view = checkpoint.tensor(&old.weight_name())?;
        let weights = match (old.locally_connected, new.locally_connected) {
            (true, false) => {
                let layer = old.name.clone();
                return Err(ConvertError::LocalAlready { layer, shared });
            }
            (false, true) => {
                copied += 1;
                ConvertedTensor::Copied(CopiedKernel::new(view, new))
            }
            (true, true) | (false, false) => ConvertedTensor::Same(view),
        };
        shared += usize::from(!old.locally_connected);
        tensors.push((new.weight_name(), weights));
        for spec in after.norm_tensors() {
            let view = checkpoint.tensor(&spec.name)?;
            tensors.push((spec.name, ConvertedTensor::Same(view)));
        }
    }
    for name in ["fc.weight", "fc.bias"] {
        tensors.push((name.into(), ConvertedTensor::Same(checkpoint.tensor(name)?)));
    }
    if copied == 0 {
        let reason = if shared == 0 {
            "all of them are locally connected already".into()
        } else {
            format!("it has {shared}, and the first {n_first_conv} are to stay convolutions")
        };
        return Err(ConvertError::NothingToConvert { reason });
    }
    Ok(Converted {
        header,
        network,
        tensors,
    })
}

/// The network that training starts from: a checkpoint's, as it is or made locally connected, whichever is wanted. `wanted`
/// describes the run; other preprocessing and other classes are worth a warning.
///
/// # Errors
/// [`ConvertError::OtherNetwork`] where more than the connectivity differs; else as [`locally_connected`].
pub fn starting_network(
    path: &Path,
    wanted: &CheckpointHeader,
    device: Device,
) -> Result<TorchNetwork, ConvertError> {
    let checkpoint = Checkpoint::open(path)?;
    let header = checkpoint.header();
    let (found, architecture) = (&header.architecture, &wanted.architecture);
    if let Some((field, found, wanted)) = difference(found, architecture) {
        let path = path.into();
        return Err(ConvertError::OtherNetwork {
            path,
            field,
            found,
            wanted,
        });
    }
    if header.preprocessing != wanted.preprocessing {
        tracing::warn!(
            "{} was trained on images that were preprocessed otherwise: {:?}, now {:?}",
            path.display(),
            header.preprocessing,
            wanted.preprocessing
        );
    }
    if !header.class_names.is_empty() && header.class_names != wanted.class_names {
        tracing::warn!(
            "{} tells other classes apart than those of the data set",
            path.display()
        );
    }
    checkpoint.verify()?;
    match architecture.connectivity {
        Connectivity::LocallyConnected { n_first_conv }
            if architecture.connectivity != found.connectivity =>
        {
            let converted = locally_connected(&checkpoint, n_first_conv)?;
            Ok(converted.load(device)?)
        }
        _ => Ok(TorchNetwork::load(&checkpoint, device)?),
    }
}

/// What no conversion changes and yet differs, with what was found and what is wanted.
fn difference(found: &Architecture, wanted: &Architecture) -> Option<(&'static str, String, String)> {
    let input = |architecture: &Architecture| {
        let input = architecture.input;
        format!("{}x{}x{}", input.channels, input.height, input.width)
    };
    let convolutional = wanted.connectivity == Connectivity::Convolutional;
    let fields = [
        ("input", input(found), input(wanted)),
        ("stem", format!("{:?}", found.stem), format!("{:?}", wanted.stem)),
        ("width", found.width.to_string(), wanted.width.to_string()),
        (
            "number of blocks",
            format!("{:?}", found.blocks),
            format!("{:?}", wanted.blocks),
        ),
        (
            "kernel size",
            found.kernel_size.to_string(),
            wanted.kernel_size.to_string(),
        ),
        (
            "number of classes",
            found.classes.to_string(),
            wanted.classes.to_string(),
        ),
    ];
    let connectivity = convolutional.then(|| {
        let word = |connectivity: Connectivity| match connectivity {
            Connectivity::Convolutional => "convolutional".to_owned(),
            Connectivity::LocallyConnected { .. } => "locally connected".to_owned(),
        };
        (
            "connectivity",
            word(found.connectivity),
            word(wanted.connectivity),
        )
    });
    fields
        .into_iter()
        .chain(connectivity)
        .find(|(_, found, wanted)| found != wanted)
}

fn header(checkpoint: &Checkpoint, n_first_conv: usize) -> CheckpointHeader {
    let source = checkpoint.header();
    let file = checkpoint.path().file_name().map(|name| name.to_string_lossy());
    let origin = json!({
        "file": file,
        "digest": checkpoint.digest(),
        "provenance": source.provenance,
    });
    CheckpointHeader {
        architecture: Architecture {
            connectivity: Connectivity::LocallyConnected { n_first_conv },
            ..source.architecture.clone()
        },
        provenance: BTreeMap::from([
            (
                "program".to_owned(),
                json!(concat!("trainer ", env!("CARGO_PKG_VERSION"))),
            ),
            (
                "initialisation".to_owned(),
                Value::from("kernels of a convolutional checkpoint"),
            ),
            ("converted_from".to_owned(), origin),
        ]),
        ..source.clone()
    }
}

impl Converted<'_> {
    /// The network with its weights on a device.
    ///
    /// # Errors
    /// [`NetworkError`] where memory doesn't suffice.
    pub fn load(&self, device: Device) -> Result<TorchNetwork, NetworkError> {
        let tensors: BTreeMap<&str, &ConvertedTensor<'_>> = self
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        TorchNetwork::from_tensors(self.network.clone(), device, |name| {
            let tensor = tensors
                .get(name)
                .ok_or_else(|| model::CheckpointError::MissingTensor(name.into()))?;
            Ok(tensor.data())
        })
    }
}

impl<'a> CopiedKernel<'a> {
    fn new(kernel: TensorView<'a>, geometry: &Convolution) -> Self {
        Self {
            kernel,
            shape: geometry.weight_shape(),
            geometry: geometry.clone(),
        }
    }

    /// The weights of one position, `[K, Cout]`, K in the order (row, column, input channel).
    fn of_a_position(&self) -> Vec<u8> {
        let Convolution {
            in_channels,
            out_channels,
            kernel_size,
            ..
        } = self.geometry;
        let window = kernel_size * kernel_size;
        let mut weights = Vec::with_capacity(self.kernel.bytes.len());
        for offset in 0..window {
            for input in 0..in_channels {
                for output in 0..out_channels {
                    let index = (output * in_channels + input) * window + offset;
                    weights.extend(&self.kernel.bytes[index * 4..index * 4 + 4]);
                }
            }
        }
        weights
    }
}

impl View for ConvertedTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Same(view) => view.dtype,
            Self::Copied(_) => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Same(view) => view.shape,
            Self::Copied(copied) => &copied.shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Same(view) => Cow::Borrowed(view.bytes),
            Self::Copied(copied) => Cow::Owned(copied.of_a_position().repeat(copied.geometry.positions())),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Same(view) => view.bytes.len(),
            Self::Copied(copied) => copied.kernel.bytes.len() * copied.geometry.positions(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_permuted_and_copied_to_every_position() {
        let (channels, window) = ((2, 3), (3, 1));
        let input = model::network::Resolution { height: 2, width: 4 };
        let geometry = Convolution::new("conv", true, channels, window, input).unwrap();
        let bytes: Vec<u8> = (0_u16..54)
            .flat_map(|value| f32::from(value).to_le_bytes())
            .collect();
        let shape = [3, 2, 3, 3];
        let kernel = TensorView {
            dtype: Dtype::F32,
            shape: &shape,
            bytes: &bytes,
        };
        let tensor = ConvertedTensor::Copied(CopiedKernel::new(kernel, &geometry));
        assert_eq!(tensor.shape(), [2, 4, 18, 3]);
        let data = tensor.data();
        assert_eq!(data.len(), tensor.data_len());
        let weights: Vec<f32> = model::checkpoint::f32_values(&data).collect();
        for position in weights.chunks(54) {
            for (index, &weight) in position.iter().enumerate() {
                let (row, output) = (index / 3, index % 3);
                let (offset, input) = (row / 2, row % 2);
                assert_eq!(weight, ((output * 2 + input) * 9 + offset) as f32);
            }
        }
        assert_eq!(weights.chunks(54).len(), 8);
    }
}
