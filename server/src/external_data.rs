//! Checks the tensors of a graph before ONNX Runtime sees them: data in files of their own must lie inside the bundle's
//! folder and inside the file, and every tensor must have as many bytes as its shape says.

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path};

use proto::onnx::tensor_proto::{DataLocation, DataType};
use proto::onnx::{GraphProto, StringStringEntryProto, TensorProto};
use thiserror::Error;

/// A tensor whose data can't be trusted.
#[derive(Debug, Error)]
#[error("tensor `{tensor}`")]
pub struct TensorError {
    /// The tensor's name.
    pub tensor: String,
    /// What is wrong with it.
    pub source: TensorProblem,
}

/// What is wrong with a tensor's data.
#[derive(Debug, Error)]
pub enum TensorProblem {
    /// A dimension below zero, or more bytes than a computer can address.
    #[error("shape {0:?} is not that of a tensor")]
    Shape(Vec<i64>),
    /// An element type that no exporter of ours writes.
    #[error("element type {0} is not supported")]
    ElementType(i32),
    /// Data of another length than the shape says.
    #[error("{found} bytes of data, {expected} expected of its shape")]
    Length {
        /// What the tensor has.
        found: u64,
        /// What its shape asks for.
        expected: u64,
    },
    /// An operator's attribute with data in a file.
    #[error("an attribute's data must be in the graph itself")]
    ExternalAttribute,
    /// A location that leads, or could lead, out of the bundle's folder.
    #[error("external data location `{0}` is not a plain file name inside the bundle's folder")]
    Location(String),
    /// Offset or length that is no number.
    #[error("external data {key} `{value}` is not a whole number")]
    Number {
        /// `offset` or `length`.
        key: &'static str,
        /// What is there instead.
        value: String,
    },
    /// A range past the end of the file.
    #[error("external data at offset {offset} needs {length} bytes, but `{file}` has only {size}")]
    PastTheEnd {
        /// Where the tensor starts.
        offset: u64,
        /// How many bytes it has.
        length: u64,
        /// The file's name.
        file: String,
        /// The file's size.
        size: u64,
    },
    /// A file that can't be looked at.
    #[error("external data file `{file}` can't be read")]
    File {
        /// The file's name.
        file: String,
        /// Why.
        source: io::Error,
    },
}

/// A file of a bundle's folder that holds data of tensors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Checks every tensor of a graph whose bundle lies in `folder` (an absolute path without symbolic links); returns the
/// files that hold their data, sorted by name.
///
/// # Errors
/// [`TensorError`] with the first tensor that is wrong.
pub fn check(graph: &GraphProto, folder: &Path) -> Result<Vec<DataFile>, TensorError> {
    let mut files = Files {
        folder,
        sizes: HashMap::new(),
    };
    for tensor in &graph.initializer {
        check_initializer(tensor, &mut files).map_err(|source| at(tensor, source))?;
    }
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    for tensor in attributes.filter_map(|attribute| attribute.t.as_ref()) {
        check_attribute(tensor).map_err(|source| at(tensor, source))?;
    }
    let file = |(name, bytes)| DataFile { name, bytes };
    let mut files: Vec<_> = files.sizes.into_iter().map(file).collect();
    files.sort();
    Ok(files)
}

fn at(tensor: &TensorProto, source: TensorProblem) -> TensorError {
    TensorError {
        tensor: tensor.name.clone(),
        source,
    }
}

fn check_initializer(tensor: &TensorProto, files: &mut Files) -> Result<(), TensorProblem> {
    let expected = byte_length(tensor)?;
    if is_external(tensor) {
        return check_external(&tensor.external_data, expected, files);
    }
    check_inline(tensor, expected)
}

fn check_attribute(tensor: &TensorProto) -> Result<(), TensorProblem> {
    if is_external(tensor) {
        return Err(TensorProblem::ExternalAttribute);
    }
    check_inline(tensor, byte_length(tensor)?)
}

/// Data in ONNX's typed fields is not read here: it counts as missing.
fn check_inline(tensor: &TensorProto, expected: u64) -> Result<(), TensorProblem> {
    let found = tensor.raw_data.len() as u64;
    if found == expected {
        Ok(())
    } else {
        Err(TensorProblem::Length { found, expected })
    }
}

fn check_external(
    entries: &[StringStringEntryProto],
    expected: u64,
    files: &mut Files,
) -> Result<(), TensorProblem> {
    let entry = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.as_str())
    };
    let number = |key: &'static str| {
        let parse = |value: &str| {
            value.parse::<u64>().map_err(|_| TensorProblem::Number {
                key,
                value: value.into(),
            })
        };
        entry(key).map(parse).transpose()
    };
    let file = entry("location").unwrap_or_default();
    let offset = number("offset")?.unwrap_or(0);
    let found = number("length")?.unwrap_or(expected);
    let size = files.size(file)?;
    if found != expected {
        return Err(TensorProblem::Length { found, expected });
    }
    if offset.checked_add(expected).is_none_or(|end| end > size) {
        return Err(TensorProblem::PastTheEnd {
            offset,
            length: expected,
            file: file.into(),
            size,
        });
    }
    Ok(())
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External || !tensor.external_data.is_empty()
}

/// Bytes of a tensor: the product of its dimensions times the element's size.
pub(crate) fn byte_length(tensor: &TensorProto) -> Result<u64, TensorProblem> {
    let element = element_size(tensor.data_type)?;
    let product = tensor.dims.iter().try_fold(element, |product, &dimension| {
        product.checked_mul(u64::try_from(dimension).ok()?)
    });
    product
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| TensorProblem::Shape(tensor.dims.clone()))
}

fn element_size(data_type: i32) -> Result<u64, TensorProblem> {
    match DataType::try_from(data_type) {
        Ok(DataType::Uint8 | DataType::Int8 | DataType::Bool) => Ok(1),
        Ok(DataType::Float16 | DataType::Bfloat16) => Ok(2),
        Ok(DataType::Float | DataType::Int32) => Ok(4),
        Ok(DataType::Int64 | DataType::Double) => Ok(8),
        Ok(DataType::Undefined) | Err(_) => Err(TensorProblem::ElementType(data_type)),
    }
}

/// The files of a bundle's folder that tensors name, each looked at once.
struct Files<'a> {
    folder: &'a Path,
    sizes: HashMap<String, u64>,
}

impl Files<'_> {
    fn size(&mut self, file: &str) -> Result<u64, TensorProblem> {
        if let Some(&size) = self.sizes.get(file) {
            return Ok(size);
        }
        let outside = || TensorProblem::Location(file.into());
        let mut components = Path::new(file).components();
        let plain = match (components.next(), components.next()) {
            (Some(Component::Normal(name)), None) => name == file,
            _ => false,
        };
        if !plain || file.contains(['\\', '\0']) {
            return Err(outside());
        }
        let failed = |source| TensorProblem::File {
            file: file.into(),
            source,
        };
        // A plain name can still be a symbolic link to somewhere else.
        let path = self.folder.join(file).canonicalize().map_err(failed)?;
        if path.parent() != Some(self.folder) {
            return Err(outside());
        }
        let metadata = path.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(outside());
        }
        self.sizes.insert(file.into(), metadata.len());
        Ok(metadata.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::onnx::{AttributeProto, NodeProto};

    fn external(dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        TensorProto {
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            name: "weights".into(),
            external_data: entries.iter().map(entry).collect(),
            data_location: DataLocation::External as i32,
            ..Default::default()
        }
    }

    /// Checks one initializer in a folder with a file `data` of 64 bytes and a link `link` that leads out.
    fn problem(tensor: TensorProto) -> Option<TensorProblem> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().canonicalize().unwrap().join("1");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("data"), [0; 64]).unwrap();
        std::fs::write(root.path().join("secret"), [0; 64]).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        let graph = GraphProto {
            initializer: vec![tensor],
            ..Default::default()
        };
        check(&graph, &folder).err().map(|error| error.source)
    }

    #[test]
    fn data_inside_the_file_is_accepted() {
        assert!(problem(external(&[2, 8], &[("location", "data")])).is_none());
        let entries = [("location", "data"), ("offset", "32"), ("length", "32")];
        assert!(problem(external(&[8], &entries)).is_none());
    }

    #[test]
    fn locations_that_lead_out_of_the_folder_are_refused() {
        let mut locations = vec![
            "",
            ".",
            "..",
            "../secret",
            "/etc/passwd",
            "a/../data",
            "./data",
            "data/",
            "..\\secret",
        ];
        // ONNX Runtime's mark for data at an address in memory.
        locations.push("*/_ORT_MEM_ADDR_/*");
        if cfg!(unix) {
            locations.push("link");
        }
        for location in locations {
            let problem = problem(external(&[1], &[("location", location)]));
            assert!(
                matches!(problem, Some(TensorProblem::Location(_))),
                "{location}: {problem:?}"
            );
        }
    }

    #[test]
    fn ranges_must_lie_in_the_file_and_fit_the_shape() {
        let past = problem(external(&[8], &[("location", "data"), ("offset", "36")]));
        assert!(
            matches!(past, Some(TensorProblem::PastTheEnd { size: 64, .. })),
            "{past:?}"
        );
        let overflow = problem(external(
            &[8],
            &[("location", "data"), ("offset", "18446744073709551615")],
        ));
        assert!(
            matches!(overflow, Some(TensorProblem::PastTheEnd { .. })),
            "{overflow:?}"
        );
        let short = problem(external(&[8], &[("location", "data"), ("length", "16")]));
        assert!(
            matches!(
                short,
                Some(TensorProblem::Length {
                    found: 16,
                    expected: 32
                })
            ),
            "{short:?}"
        );
        let number = problem(external(&[8], &[("location", "data"), ("offset", "-4")]));
        assert!(
            matches!(number, Some(TensorProblem::Number { key: "offset", .. })),
            "{number:?}"
        );
        let missing = problem(external(&[8], &[("location", "nothing")]));
        assert!(matches!(missing, Some(TensorProblem::File { .. })), "{missing:?}");
    }

    #[test]
    fn shapes_that_no_tensor_has_are_refused() {
        for dims in [vec![-1], vec![i64::MAX, 4], vec![1 << 40, 1 << 40]] {
            let problem = problem(external(&dims, &[("location", "data")]));
            assert!(
                matches!(problem, Some(TensorProblem::Shape(_))),
                "{dims:?}: {problem:?}"
            );
        }
    }

    #[test]
    fn data_in_the_graph_must_have_the_length_of_its_shape() {
        let inline = |bytes: usize| TensorProto {
            dims: vec![2],
            data_type: DataType::Float as i32,
            raw_data: vec![0; bytes],
            ..Default::default()
        };
        assert!(problem(inline(8)).is_none());
        assert!(matches!(
            problem(inline(0)),
            Some(TensorProblem::Length {
                found: 0,
                expected: 8
            })
        ));
    }

    #[test]
    fn an_attribute_has_its_data_in_the_graph() {
        let attribute = AttributeProto {
            t: Some(external(&[1], &[("location", "data")])),
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![NodeProto {
                attribute: vec![attribute],
                ..Default::default()
            }],
            ..Default::default()
        };
        let error = check(&graph, Path::new("/")).unwrap_err();
        assert!(
            matches!(error.source, TensorProblem::ExternalAttribute),
            "{error:?}"
        );
    }
}
