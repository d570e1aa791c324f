//! Finds out from names and shapes of tensors which network a file holds: it doesn't say.

use std::collections::BTreeMap;

use model::{Architecture, Connectivity, InputShape, Stem};

use super::ImportError;

/// Shapes of tensors by name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// Height and width of ImageNet's images, after the usual crop.
const IMAGENET_SIZE: usize = 224;
/// Classes of ImageNet.
pub(super) const IMAGENET_CLASSES: usize = 1000;

/// The architecture whose tensors these are. A convolutional network fits any input size, a locally connected one only
/// that which it was trained for (an even one, as its stem's stride is lost): `input_size` (height, width) overrides.
pub(super) fn architecture(
    tensors: &Shapes,
    input_size: Option<(usize, usize)>,
) -> Result<Architecture, ImportError> {
    let conv1 = weights(tensors, "conv1")?;
    let kernel_size = conv1.kernel_size;
    // The two stems that the authors' networks have.
    let max_pool = kernel_size > 3;
    let stem = Stem {
        kernel_size,
        stride: if max_pool { 2 } else { 1 },
        max_pool,
    };
    let blocks = blocks(tensors);
    if blocks.is_empty() {
        return Err(not_a_resnet("layer1.0.conv1.weight"));
    }
    if tensors.contains_key("layer1.0.conv3.weight") {
        let message = "its blocks have three convolutions, as those of ResNet-50 and deeper ones; only ResNets of basic \
                       blocks can be imported";
        return Err(ImportError::Network(message.into()));
    }
    let (connectivity, first_local) = connectivity(tensors, &blocks)?;
    let inferred = first_local.map(|(name, (height, width))| {
        // Every stage after the first halves the resolution once more.
        let stage = name
            .strip_prefix("layer")
            .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        let pooled = if max_pool { 2 } else { 1 };
        let scale = stem.stride * stage.map_or(1, |stage| pooled << (stage - 1).min(31));
        (height.saturating_mul(scale), width.saturating_mul(scale))
    });
    let classes = shape(tensors, "fc.bias")?.first().copied().unwrap_or(0);
    let imagenet = max_pool && conv1.in_channels == 3 && classes == IMAGENET_CLASSES;
    let size = input_size.or(inferred);
    if size.is_none() && imagenet {
        tracing::info!(
            "a convolutional ResNet of ImageNet's {IMAGENET_CLASSES} classes; its images are taken to have \
             {IMAGENET_SIZE}x{IMAGENET_SIZE} pixels, which --input-size changes"
        );
    }
    let (height, width) = size
        .or(imagenet.then_some((IMAGENET_SIZE, IMAGENET_SIZE)))
        .ok_or_else(|| {
            ImportError::Network(
                "a convolutional checkpoint doesn't say how large its images are; give --input-size (224 for ImageNet)"
                    .into(),
            )
        })?;
    Ok(Architecture {
        input: InputShape {
            channels: conv1.in_channels,
            height,
            width,
        },
        stem,
        width: conv1.out_channels,
        blocks,
        kernel_size: weights(tensors, "layer1.0.conv1")?.kernel_size,
        classes,
        connectivity,
    })
}

/// What the shape of a convolution's or a locally connected layer's weights shows.
struct WeightShape {
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    /// Height and width of the output, where locally connected.
    output: Option<(usize, usize)>,
}

fn weights(tensors: &Shapes, name: &str) -> Result<WeightShape, ImportError> {
    let local = format!("{name}.weights");
    let (name, shape) = if tensors.contains_key(&local) {
        (local.clone(), shape(tensors, &local)?)
    } else {
        let shared = format!("{name}.weight");
        (shared.clone(), shape(tensors, &shared)?)
    };
    match *shape.as_slice() {
        [in_channels, out_channels, height, width, kernel_size, other] if kernel_size == other => {
            Ok(WeightShape {
                in_channels,
                out_channels,
                kernel_size,
                output: Some((height, width)),
            })
        }
        [out_channels, in_channels, kernel_size, other] if kernel_size == other => Ok(WeightShape {
            in_channels,
            out_channels,
            kernel_size,
            output: None,
        }),
        _ => Err(ImportError::Network(format!(
            "`{name}` has shape {shape:?}, which no convolution has"
        ))),
    }
}

/// Blocks of every stage.
fn blocks(tensors: &Shapes) -> Vec<usize> {
    let has = |stage: usize, block: usize| {
        let name = format!("layer{stage}.{block}.conv1.weight");
        tensors.contains_key(&name) || tensors.contains_key(&format!("{name}s"))
    };
    (1..)
        .map(|stage| (0..).take_while(|&block| has(stage, block)).count())
        .take_while(|&count| count > 0)
        .collect()
}

/// The connectivity, and the first locally connected layer with its output's height and width.
#[expect(clippy::type_complexity, reason = "a pair, read at one place")]
fn connectivity(
    tensors: &Shapes,
    blocks: &[usize],
) -> Result<(Connectivity, Option<(String, (usize, usize))>), ImportError> {
    let stages = blocks.iter().enumerate().flat_map(|(stage, &count)| {
        (0..count).flat_map(move |block| {
            ["conv1", "conv2", "downsample.0"].map(|name| format!("layer{}.{block}.{name}", stage + 1))
        })
    });
    let present = |name: &String| {
        tensors.contains_key(&format!("{name}.weight")) || tensors.contains_key(&format!("{name}.weights"))
    };
    let names = std::iter::once("conv1".to_owned()).chain(stages).filter(present);
    for (n_first_conv, name) in names.enumerate() {
        if let Some(output) = weights(tensors, &name)?.output {
            return Ok((
                Connectivity::LocallyConnected { n_first_conv },
                Some((name, output)),
            ));
        }
    }
    Ok((Connectivity::Convolutional, None))
}

fn shape(tensors: &Shapes, name: &str) -> Result<Vec<usize>, ImportError> {
    tensors.get(name).cloned().ok_or_else(|| not_a_resnet(name))
}

fn not_a_resnet(name: &str) -> ImportError {
    ImportError::Network(format!(
        "there is no tensor `{name}`: only ResNets of basic blocks with torchvision's names can be imported"
    ))
}
