//! Projections: linear maps of a layer's activations, such as the principal components of a corpus of stimuli. Sending a
//! thousand components of an image instead of all of its activations saves most of the bytes.
//!
//! A projection is a safetensors file with the float32 tensors `components` `[K, D]` and, optionally, `mean` `[D]`; its
//! metadata entry `layer` names the layer, and `fitted_to`, if a server fitted it, the checkpoint's digest. [`store`] has those that were uploaded or [fitted](crate::fitting) and those
//! that lie beside a model, [`product`] computes them.

mod beside;
pub mod product;
pub mod store;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use model::MappedFile;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use thiserror::Error;

use crate::fitting::disk::DiskSpace;

pub(crate) use beside::FOLDER;

/// The entry in a file's metadata that has the digest of the checkpoint that it was fitted to.
pub(crate) const FITTED_TO: &str = "fitted_to";

/// A linear map of a layer's activations: `(activations - mean) · componentsᵀ`.
pub struct Projection {
    name: String,
    layer: String,
    stored: bool,
    fitted_to: Option<String>,
    features: usize,
    components: usize,
    file: File,
    components_at: Range<usize>,
    /// `[D]`; zeros where the file has none.
    mean: Vec<f32>,
}

/// The file's bytes.
enum File {
    /// Beside the model; its pages are read when they are needed.
    Mapped(MappedFile),
    /// Uploaded.
    InMemory(Vec<u8>),
    /// Fitted: without a name, on the part of the disk that is counted for it.
    Fitted(
        MappedFile,
        #[expect(dead_code, reason = "held, not read")] DiskSpace,
    ),
}

/// Why a file is no projection.
#[derive(Debug, Error)]
pub enum ProjectionError {
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] SafeTensorError),
    /// It doesn't say of which layer.
    #[error("the file's metadata has no entry `layer` that names the layer")]
    NoLayer,
    /// A tensor of another type or shape.
    #[error("the tensor `{name}` is {found}, expected float32 of shape {expected}")]
    Tensor {
        /// `components` or `mean`.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A file whose tensors don't begin at a multiple of four bytes, so that they can't be used where they are.
    #[error(
        "the tensors are not aligned: pad the file's header to a multiple of 8 bytes, as safetensors' own libraries do"
    )]
    Unaligned,
}

impl Projection {
    /// Reads a projection from a file's bytes; only the header and the mean are touched.
    fn parse(name: &str, file: File) -> Result<Self, ProjectionError> {
        let bytes = file.bytes();
        let (header, metadata) = SafeTensors::read_metadata(bytes)?;
        let entries = metadata.metadata().as_ref();
        let layer = entries.and_then(|entries| entries.get("layer"));
        let layer = layer.ok_or(ProjectionError::NoLayer)?.clone();
        let start = header + size_of::<u64>();
        let range = |(begin, end): (usize, usize)| start + begin..start + end;
        let wrong = |name, found: String, expected: &str| ProjectionError::Tensor {
            name,
            found,
            expected: expected.into(),
        };
        let missing = || "missing".to_owned();
        let (components, features, components_at) = match metadata.info("components") {
            Some(info) if info.dtype == Dtype::F32 => match *info.shape.as_slice() {
                [components, features] if components > 0 && features > 0 => {
                    (components, features, range(info.data_offsets))
                }
                _ => {
                    return Err(wrong(
                        "components",
                        format!("of shape {:?}", info.shape),
                        "[K, D]",
                    ));
                }
            },
            Some(info) => return Err(wrong("components", format!("{:?}", info.dtype), "[K, D]")),
            None => return Err(wrong("components", missing(), "[K, D]")),
        };
        let mean = match metadata.info("mean") {
            None => vec![0.0; features],
            Some(info) if info.dtype == Dtype::F32 && info.shape == [features] => {
                let mean = bytes.get(range(info.data_offsets)).unwrap_or_default();
                mean.chunks_exact(4)
                    .map(|value| value.try_into().map_or(0.0, f32::from_le_bytes))
                    .collect()
            }
            Some(info) => {
                let found = format!("{:?} of shape {:?}", info.dtype, info.shape);
                return Err(wrong("mean", found, &format!("[{features}]")));
            }
        };
        let values = bytes.get(components_at.clone()).unwrap_or_default();
        if bytemuck::try_cast_slice::<u8, f32>(values).is_err() {
            return Err(ProjectionError::Unaligned);
        }
        Ok(Self {
            name: name.into(),
            layer,
            stored: matches!(file, File::Mapped(_)),
            fitted_to: entries.and_then(|entries| entries.get(FITTED_TO)).cloned(),
            features,
            components,
            file,
            components_at,
            mean,
        })
    }

    /// What requests call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The layer's name.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Whether it lies beside the model.
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// The digest of the checkpoint that a server fitted it to; such a projection may be replaced and deleted where it lies.
    fn fitted_to(&self) -> Option<&str> {
        self.fitted_to.as_deref()
    }

    /// D: values that it takes of an image.
    pub fn features(&self) -> usize {
        self.features
    }

    /// K: values that it gives.
    pub fn components(&self) -> usize {
        self.components
    }

    /// `[D]`.
    fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// `[K, D]`. In place where numbers are little-endian.
    fn matrix(&self) -> Cow<'_, [f32]> {
        let bytes = &self.file.bytes()[self.components_at.clone()];
        if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(bytes))
        } else {
            let values = bytes
                .chunks_exact(4)
                .map(|value| value.try_into().map_or(0.0, f32::from_le_bytes));
            Cow::Owned(values.collect())
        }
    }
}

impl File {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(file) | Self::Fitted(file, _) => file,
            Self::InMemory(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Projection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            layer,
            features,
            components,
            ..
        } = self;
        write!(
            formatter,
            "Projection({name}: {layer}, {components} of {features})"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(tensors: &[(&str, Dtype, &[usize], usize)], layer: Option<&str>) -> Vec<u8> {
        let data = vec![0; 1000];
        let views = tensors.iter().map(|&(name, dtype, shape, bytes)| {
            (
                name,
                TensorView::new(dtype, shape.to_vec(), &data[..bytes]).unwrap(),
            )
        });
        let metadata = layer.map(|layer| HashMap::from([("layer".to_owned(), layer.to_owned())]));
        safetensors::serialize(views, metadata).unwrap()
    }

    fn parse(bytes: Vec<u8>) -> Result<Projection, ProjectionError> {
        Projection::parse("name", File::InMemory(bytes))
    }

    #[test]
    fn a_projection_says_what_it_takes_and_gives() {
        let tensors = [
            ("components", Dtype::F32, &[2, 3][..], 24),
            ("mean", Dtype::F32, &[3], 12),
        ];
        let projection = parse(file(&tensors, Some("layer1"))).unwrap();
        assert_eq!(projection.layer(), "layer1");
        assert_eq!((projection.features(), projection.components()), (3, 2));
        assert_eq!(projection.matrix().len(), 6);
        let projection = parse(file(&tensors[..1], Some("layer1"))).unwrap();
        assert_eq!(projection.mean(), [0.0; 3]);
    }

    #[test]
    fn files_that_are_no_projections_say_why() {
        let good = ("components", Dtype::F32, &[2, 3][..], 24);
        for (bytes, expected) in [
            (b"not one".to_vec(), "not a safetensors file"),
            (file(&[good], None), "no entry `layer`"),
            (
                file(&[], Some("fc")),
                "`components` is missing, expected float32 of shape [K, D]",
            ),
            (
                file(&[("components", Dtype::F64, &[1, 3], 24)], Some("fc")),
                "`components` is F64",
            ),
            (
                file(&[("components", Dtype::F32, &[6], 24)], Some("fc")),
                "`components` is of shape [6]",
            ),
            (
                file(&[("components", Dtype::F32, &[0, 3], 0)], Some("fc")),
                "[0, 3]",
            ),
            (
                file(&[good, ("mean", Dtype::F32, &[2], 8)], Some("fc")),
                "expected float32 of shape [3]",
            ),
        ] {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut truncated = file(&[good], Some("fc"));
        truncated.truncate(truncated.len() - 1);
        assert!(parse(truncated).is_err());
    }

    proptest! {
        #[test]
        fn no_file_makes_reading_panic(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            length in any::<prop::sample::Index>(),
        ) {
            let tensors = [("components", Dtype::F32, &[2, 3][..], 24), ("mean", Dtype::F32, &[3], 12)];
            let mut bytes = file(&tensors, Some("layer1"));
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if let Ok(projection) = parse(bytes.clone()) {
                prop_assert_eq!(projection.matrix().len(), projection.components() * projection.features());
                prop_assert_eq!(projection.mean().len(), projection.features());
            }
            bytes.truncate(length.index(bytes.len()));
            let _ = parse(bytes);
        }
    }
}
