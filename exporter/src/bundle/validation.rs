//! Checks a bundle's constants before anything is loaded: where their data is, and that there is as much of it as
//! their shapes say. A bundle from elsewhere reads no file but its own.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path};

use proto::onnx::tensor_proto::{DataLocation, DataType};
use proto::onnx::{GraphProto, TensorProto};

use crate::error::BundleError;

/// Checks every constant of a graph whose file is in `folder`.
///
/// # Errors
/// [`BundleError::Tensor`] with the constant's name and the reason.
pub(super) fn constants(graph: &GraphProto, folder: &Path) -> Result<(), BundleError> {
    let mut files = DataFiles {
        folder,
        lengths: HashMap::new(),
        ranges: HashMap::new(),
    };
    for tensor in &graph.initializer {
        let checked = if external(tensor) {
            files.check(tensor)
        } else {
            inline(tensor)
        };
        checked.map_err(|reason| refused(tensor, reason))?;
    }
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        if let Some(tensor) = attribute.t.as_ref().filter(|tensor| external(tensor)) {
            let reason = "only initializers may have external data";
            return Err(refused(tensor, reason.into()));
        }
    }
    for (location, ranges) in files.ranges {
        no_overlap(&location, ranges)?;
    }
    Ok(())
}

/// The files in which external data is.
struct DataFiles<'a> {
    folder: &'a Path,
    lengths: HashMap<String, u64>,
    ranges: HashMap<String, Vec<(Range<u64>, String)>>,
}

impl DataFiles<'_> {
    fn check(&mut self, tensor: &TensorProto) -> Result<(), String> {
        let value = |key: &str| {
            let mut values = tensor.external_data.iter().filter(|entry| entry.key == key);
            match (values.next(), values.next()) {
                (Some(entry), None) => Ok(entry.value.as_str()),
                (None, _) => Err(format!("its external data has no `{key}`")),
                (Some(_), Some(_)) => Err(format!("its external data has more than one `{key}`")),
            }
        };
        let number = |key: &str| {
            let text = value(key)?;
            text.parse::<u64>()
                .map_err(|_| format!("`{key}` of its external data is `{text}`, not a number of bytes"))
        };
        if !tensor.raw_data.is_empty() {
            return Err("it has data in the graph and external data".into());
        }
        let location = value("location")?;
        let available = self.length(location)?;
        let (offset, length) = (number("offset")?, number("length")?);
        let end = offset.checked_add(length).filter(|&end| end <= available);
        let Some(end) = end else {
            return Err(format!(
                "its data of {length} bytes at {offset} lies outside `{location}`, which has {available}"
            ));
        };
        let expected = expected_bytes(tensor)?;
        if length != expected {
            return Err(format!(
                "its data has {length} bytes, its shape {:?} needs {expected}",
                tensor.dims
            ));
        }
        let ranges = self.ranges.entry(location.into()).or_default();
        ranges.push((offset..end, tensor.name.clone()));
        Ok(())
    }

    /// Bytes of a file, which has to lie in the bundle's folder itself.
    fn length(&mut self, location: &str) -> Result<u64, String> {
        if let Some(&length) = self.lengths.get(location) {
            return Ok(length);
        }
        let mut components = Path::new(location).components();
        let plain = match (components.next(), components.next()) {
            (Some(Component::Normal(name)), None) => name == location,
            _ => false,
        };
        if !plain {
            return Err(format!(
                "its external data is in `{location}`, which is no plain file name; data outside the bundle's folder \
                 is never read"
            ));
        }
        let path = self.folder.join(location);
        let metadata =
            fs::symlink_metadata(&path).map_err(|error| format!("its data file `{location}`: {error}"))?;
        // A symbolic link would lead anywhere.
        if !metadata.is_file() {
            return Err(format!("its data file `{location}` is not a regular file"));
        }
        self.lengths.insert(location.into(), metadata.len());
        Ok(metadata.len())
    }
}

fn external(tensor: &TensorProto) -> bool {
    tensor.data_location == i32::from(DataLocation::External) || !tensor.external_data.is_empty()
}

fn inline(tensor: &TensorProto) -> Result<(), String> {
    let (found, expected) = (tensor.raw_data.len(), expected_bytes(tensor)?);
    if found as u64 == expected {
        Ok(())
    } else {
        Err(format!(
            "it has {found} bytes of data, its shape {:?} needs {expected}",
            tensor.dims
        ))
    }
}

/// The product of the dimensions times an element's bytes.
fn expected_bytes(tensor: &TensorProto) -> Result<u64, String> {
    let element = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Uint8 | DataType::Int8 | DataType::Bool) => 1,
        Ok(DataType::Float16 | DataType::Bfloat16) => 2,
        Ok(DataType::Float | DataType::Int32) => 4,
        Ok(DataType::Double | DataType::Int64) => 8,
        Ok(DataType::Undefined) | Err(_) => {
            return Err(format!("element type {} is not supported", tensor.data_type));
        }
    };
    let bytes = tensor.dims.iter().try_fold(element, |product: u64, &length| {
        product.checked_mul(u64::try_from(length).ok()?)
    });
    bytes.ok_or_else(|| format!("{:?} is no shape", tensor.dims))
}

/// Overlapping tensors would let a small file fill the memory.
fn no_overlap(location: &str, mut ranges: Vec<(Range<u64>, String)>) -> Result<(), BundleError> {
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in ranges.windows(2) {
        if let [(first, first_name), (second, name)] = pair
            && second.start < first.end
        {
            return Err(BundleError::Tensor {
                tensor: name.clone(),
                reason: format!("its data in `{location}` overlaps that of `{first_name}`"),
            });
        }
    }
    Ok(())
}

fn refused(tensor: &TensorProto, reason: String) -> BundleError {
    BundleError::Tensor {
        tensor: tensor.name.clone(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use proto::onnx::{AttributeProto, NodeProto, StringStringEntryProto};

    use super::*;

    fn tensor(location: &str, offset: &str, length: &str) -> TensorProto {
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        TensorProto {
            name: "conv1/weights".into(),
            dims: vec![2, 3],
            data_type: DataType::Float.into(),
            data_location: DataLocation::External.into(),
            external_data: vec![
                entry("location", location),
                entry("offset", offset),
                entry("length", length),
            ],
            ..TensorProto::default()
        }
    }

    fn check(initializer: Vec<TensorProto>) -> Result<(), String> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("bundle");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("data"), [0; 100]).unwrap();
        fs::write(parent.path().join("outside"), [0; 100]).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
        let graph = GraphProto {
            initializer,
            ..GraphProto::default()
        };
        constants(&graph, &folder).map_err(|error| error.to_string())
    }

    fn refusal(tensor: TensorProto) -> String {
        check(vec![tensor]).unwrap_err()
    }

    #[test]
    fn data_inside_the_file_is_accepted() {
        assert_eq!(
            check(vec![tensor("data", "76", "24"), tensor("data", "0", "24")]),
            Ok(())
        );
    }

    #[test]
    fn data_outside_the_folder_is_refused() {
        for location in [
            "../outside",
            "/etc/hostname",
            "a/b",
            "..",
            ".",
            "",
            "./data",
            "data/",
            "link",
        ] {
            let error = refusal(tensor(location, "0", "24"));
            assert!(
                error.contains("conv1/weights") && error.contains(location),
                "{error}"
            );
        }
        assert!(refusal(tensor("absent", "0", "24")).contains("`absent`"));
    }

    #[test]
    fn data_outside_the_file_is_refused() {
        assert!(refusal(tensor("data", "80", "24")).contains("lies outside `data`, which has 100"));
        assert!(refusal(tensor("data", "18446744073709551615", "24")).contains("lies outside"));
        assert!(refusal(tensor("data", "-1", "24")).contains("`-1`"));
    }

    #[test]
    fn data_of_another_length_is_refused() {
        assert!(refusal(tensor("data", "0", "20")).contains("20 bytes, its shape [2, 3] needs 24"));
        for dims in [vec![-2, -3], vec![i64::MAX, i64::MAX]] {
            let hostile = TensorProto {
                dims,
                ..tensor("data", "0", "24")
            };
            assert!(refusal(hostile).contains("is no shape"));
        }
        let inline = TensorProto {
            dims: vec![2],
            data_type: DataType::Int64.into(),
            raw_data: vec![0; 15],
            ..TensorProto::default()
        };
        assert!(refusal(inline).contains("15 bytes of data, its shape [2] needs 16"));
    }

    #[test]
    fn overlapping_and_ambiguous_data_is_refused() {
        let overlapping = check(vec![tensor("data", "0", "24"), tensor("data", "20", "24")]);
        assert!(overlapping.unwrap_err().contains("overlaps"));
        let mut twice = tensor("data", "0", "24");
        twice.external_data.extend(twice.external_data.clone());
        assert!(refusal(twice).contains("more than one `location`"));
        let mut both = tensor("data", "0", "24");
        both.raw_data = vec![0; 24];
        assert!(refusal(both).contains("in the graph and external"));
    }

    #[test]
    fn external_data_of_attributes_is_refused() {
        let attribute = AttributeProto {
            t: Some(tensor("data", "0", "24")),
            ..AttributeProto::default()
        };
        let graph = GraphProto {
            node: vec![NodeProto {
                attribute: vec![attribute],
                ..NodeProto::default()
            }],
            ..GraphProto::default()
        };
        let error = constants(&graph, Path::new(".")).unwrap_err().to_string();
        assert!(error.contains("only initializers"), "{error}");
    }
}
