//! Bundles whose files are damaged in any way: loading them gives an error, or a bundle, and never a panic.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::path::Path;

use model::manifest::METADATA_KEY;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use proto::onnx::ModelProto;
use serde_json::{Value, json};
use server::bundle::{Bundle as Loaded, GRAPH_FILE};
use support::bundle::{Bundle, DATA_FILE};

/// What happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Truncated(Index),
    Overwritten(Index, Vec<u8>),
    Inserted(Index, Vec<u8>),
    Removed(Index, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Truncated(end) => bytes.truncate(place(end, bytes)),
            Self::Overwritten(start, new) => {
                let start = place(start, bytes);
                for (byte, new) in bytes[start..].iter_mut().zip(new) {
                    *byte = *new;
                }
            }
            Self::Inserted(start, new) => {
                let start = place(start, bytes);
                bytes.splice(start..start, new.iter().copied());
            }
            Self::Removed(start, length) => {
                let start = place(start, bytes);
                let end = bytes.len().min(start + length);
                bytes.drain(start..end);
            }
        }
    }
}

/// Any bytes, and those that numbers and JSON are made of: the manifest is JSON.
fn new_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..8),
        prop::collection::vec(prop::sample::select(b"0123456789-.\",:[]{}".as_slice()), 1..20),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Truncated),
        (any::<Index>(), new_bytes()).prop_map(|(start, new)| Damage::Overwritten(start, new)),
        (any::<Index>(), new_bytes()).prop_map(|(start, new)| Damage::Inserted(start, new)),
        (any::<Index>(), 1..64_usize).prop_map(|(start, length)| Damage::Removed(start, length)),
    ]
}

/// Values that a manifest's fields may be given by mistake or on purpose.
fn values() -> impl Strategy<Value = Value> {
    const NUMBERS: [u64; 9] = [
        0,
        1,
        2,
        7,
        1 << 20,
        u32::MAX as u64,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ];
    prop_oneof![
        prop::sample::select(NUMBERS.as_slice()).prop_map(Value::from),
        prop::sample::select(vec![
            json!(null),
            json!(-1),
            json!(1e308),
            json!(""),
            json!("layer9"),
            json!([]),
            json!({}),
            json!(true),
            json!([1, 1, 1, 1]),
        ]),
        any::<u16>().prop_map(Value::from),
    ]
}

/// Every value in a tree, as JSON pointers.
fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.into());
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                pointers(value, &format!("{path}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                pointers(value, &format!("{path}/{name}"), found);
            }
        }
        _ => {}
    }
}

fn load(folder: &Path) -> Result<Loaded, String> {
    Loaded::load("lc", 1, folder).map_err(|error| server::error::chain(&error))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_graphs_are_loaded_without_a_panic(damages in prop::collection::vec(damage(), 1..4)) {
        let root = tempfile::tempdir().unwrap();
        let folder = Bundle::new().write(root.path(), "lc", 1);
        let path = folder.join(GRAPH_FILE);
        let mut graph = std::fs::read(&path).unwrap();
        for damage in damages {
            damage.apply(&mut graph);
        }
        std::fs::write(&path, graph).unwrap();
        match load(&folder) {
            Ok(bundle) => prop_assert!(!bundle.manifest.layers.is_empty()),
            Err(error) => prop_assert!(!error.is_empty()),
        }
    }

    #[test]
    fn manifests_with_wrong_values_are_loaded_without_a_panic(
        changes in prop::collection::vec((any::<Index>(), values()), 1..4),
    ) {
        let root = tempfile::tempdir().unwrap();
        let folder = Bundle::new().write(root.path(), "lc", 1);
        let path = folder.join(GRAPH_FILE);
        let mut graph = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
        let entry = graph.metadata_props.iter_mut().find(|entry| entry.key == METADATA_KEY).unwrap();
        let mut manifest: Value = serde_json::from_str(&entry.value).unwrap();
        for (index, value) in changes {
            let mut places = Vec::new();
            pointers(&manifest, "", &mut places);
            let place = index.get::<String>(&places);
            *manifest.pointer_mut(place).unwrap() = value;
        }
        entry.value = manifest.to_string();
        std::fs::write(&path, graph.encode_to_vec()).unwrap();
        if let Err(error) = load(&folder) {
            prop_assert!(!error.is_empty());
        }
    }

    /// Weights are not read: what counts is whether all of them are there.
    #[test]
    fn truncated_weights_are_refused(length in 0..4096 + 32 * 3 * 4_usize) {
        let root = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new();
        bundle.data.truncate(length);
        let folder = bundle.write(root.path(), "lc", 1);
        let error = load(&folder).unwrap_err();
        prop_assert!(error.contains(DATA_FILE), "{}", error);
    }
}
