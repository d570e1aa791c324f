//! Networks with torchvision's names in safetensors files, and files that can't be imported.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::borrow::Cow;
use std::error::Error as _;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use model::checkpoint::{Dtype, View, f32_values, write_tensors};
use model::{Checkpoint, CheckpointHeader, InputShape, Preprocessing};
use trainer::import::{ImportError, ImportOptions, ImportPreprocessing, import};

/// A tensor of a file that somebody else has written.
struct Foreign {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Foreign {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

type Tensors = Vec<(String, Foreign)>;

fn options(size: usize) -> ImportOptions {
    ImportOptions {
        input_size: Some((size, size)),
        preprocessing: ImportPreprocessing::UnitRange,
        class_names: Vec::new(),
    }
}

/// The convolutional golden network, which has torchvision's names and layout, imported from the authors' checkpoint.
fn original(folder: &Path) -> Checkpoint {
    let output = folder.join("original.safetensors");
    import(&support::path("conv_resnet18_w4_s64.pt"), &output, &options(64)).unwrap();
    Checkpoint::open(&output).unwrap()
}

fn tensors(checkpoint: &Checkpoint) -> Tensors {
    let specs = checkpoint.network().tensors().into_iter();
    specs
        .map(|spec| {
            let view = checkpoint.tensor(&spec.name).unwrap();
            let tensor = Foreign {
                dtype: view.dtype,
                shape: view.shape.to_vec(),
                bytes: view.bytes.to_vec(),
            };
            (spec.name, tensor)
        })
        .collect()
}

/// Writes tensors as others do, under any name; safetensors files of PyTorch's say `format: pt`.
fn write(folder: &Path, tensors: &[(String, Foreign)]) -> PathBuf {
    let path = folder.join("weights.of-anyone");
    write_tensors(&path, ("format", "pt".into()), tensors)
        .unwrap()
        .publish()
        .unwrap();
    path
}

fn imported(folder: &Path, source: &Path, options: &ImportOptions) -> Result<Checkpoint, ImportError> {
    let output = folder.join("imported.safetensors");
    import(source, &output, options)?;
    let checkpoint = Checkpoint::open(&output).unwrap();
    checkpoint.verify().unwrap();
    Ok(checkpoint)
}

/// The causes of an error, one a line.
fn causes(error: &ImportError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}\n{error}");
        cause = error.source();
    }
    text
}

#[test]
fn the_format_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(folder.path());
    let plain = tensors(&original);
    let parallel: Tensors = tensors(&original)
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor))
        .collect();
    for tensors in [plain, parallel] {
        let source = write(folder.path(), &tensors);
        let found = imported(folder.path(), &source, &options(64)).unwrap();
        assert_eq!(found.digest(), original.digest());
        assert_eq!(found.header().provenance["imported_format"], "safetensors");
    }
}

#[test]
fn networks_from_before_batches_were_counted_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(folder.path());
    let mut tensors = tensors(&original);
    tensors.retain(|(name, _)| !name.ends_with("num_batches_tracked"));
    let source = write(folder.path(), &tensors);
    let found = imported(folder.path(), &source, &options(64)).unwrap();
    for (name, tensor) in tensors {
        assert!(found.tensor(&name).unwrap().bytes == tensor.bytes, "{name}");
    }
    assert_eq!(
        found.tensor("layer4.1.bn2.num_batches_tracked").unwrap().bytes,
        [0; 8]
    );
}

#[test]
fn halves_become_float32() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(folder.path());
    for dtype in [Dtype::F16, Dtype::BF16] {
        let round = |value: f32| match dtype {
            Dtype::F16 => (f16::from_f32(value).to_f32(), f16::from_f32(value).to_le_bytes()),
            _ => (
                bf16::from_f32(value).to_f32(),
                bf16::from_f32(value).to_le_bytes(),
            ),
        };
        let mut tensors = tensors(&original);
        for (_, tensor) in &mut tensors {
            if tensor.dtype == Dtype::F32 {
                tensor.dtype = dtype;
                tensor.bytes = f32_values(&tensor.bytes)
                    .flat_map(|value| round(value).1)
                    .collect();
            }
        }
        let source = write(folder.path(), &tensors);
        let found = imported(folder.path(), &source, &options(64)).unwrap();
        let name = "layer3.0.downsample.0.weight";
        let values: Vec<f32> = f32_values(found.tensor(name).unwrap().bytes).collect();
        let expected: Vec<f32> = f32_values(original.tensor(name).unwrap().bytes)
            .map(|value| round(value).0)
            .collect();
        assert_eq!(values, expected, "{dtype:?}");
    }
}

#[test]
fn networks_of_a_thousand_classes_see_imagenet() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = tensors(&original(folder.path()));
    for (name, tensor) in &mut tensors {
        if name.starts_with("fc.") {
            let of_class = tensor.bytes.len() / tensor.shape[0];
            tensor.shape[0] = 1000;
            tensor.bytes = vec![0; 1000 * of_class];
        }
    }
    let source = write(folder.path(), &tensors);
    let found = imported(folder.path(), &source, &ImportOptions::default()).unwrap();
    let CheckpointHeader {
        architecture,
        preprocessing,
        class_names,
        ..
    } = found.header();
    assert_eq!(class_names.len(), 1000);
    assert_eq!(class_names[0], "tench, Tinca tinca");
    assert_eq!(class_names[999], "toilet tissue, toilet paper, bathroom tissue");
    let input = InputShape {
        channels: 3,
        height: 224,
        width: 224,
    };
    assert_eq!((architecture.input, architecture.classes), (input, 1000));
    assert_eq!(*preprocessing, Preprocessing::imagenet(input));
    let given: Vec<String> = (0..1000).map(|class| format!("class {class}")).collect();
    let options = ImportOptions {
        class_names: given.clone(),
        ..options(64)
    };
    let found = imported(folder.path(), &source, &options).unwrap();
    assert_eq!(found.header().architecture.input.height, 64);
    assert_eq!(found.header().class_names, given);
}

#[test]
fn what_cannot_be_imported_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let original = original(folder.path());
    let refused = |source: &Path| {
        let error = imported(folder.path(), source, &options(64)).unwrap_err();
        assert!(!folder.path().join("imported.safetensors").exists());
        let text = causes(&error);
        let name = source.file_name().unwrap().to_str().unwrap();
        assert!(text.lines().next().unwrap().ends_with(name), "{text}");
        text
    };
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors(&original);
        change(&mut tensors);
        refused(&write(folder.path(), &tensors))
    };
    let said = with(&|tensors| {
        let (_, tensor) = tensors.pop().unwrap();
        tensors.push(("layer1.0.conv3.weight".into(), tensor));
    });
    assert!(said.contains("only ResNets of basic blocks"), "{said}");
    let said = with(&|tensors| tensors[0].1.dtype = Dtype::I32);
    assert!(
        said.contains("`conv1.weight` has elements of type Other"),
        "{said}"
    );
    let said = with(&|tensors| drop(tensors.pop()));
    assert!(said.contains("fc.bias"), "{said}");
    let said = with(&|tensors| tensors.retain(|(name, _)| name != "layer2.1.bn2.running_var"));
    assert!(
        said.contains("there is no tensor `layer2.1.bn2.running_var`"),
        "{said}"
    );
    let said = with(&|tensors| tensors.clear());
    assert!(said.contains("conv1.weight"), "{said}");
    let said = refused(&folder.path().join("original.safetensors"));
    assert!(said.contains("a checkpoint of Ventral's already"), "{said}");

    let whole = std::fs::read(write(folder.path(), &tensors(&original))).unwrap();
    let damaged = folder.path().join("damaged");
    for length in [9, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&damaged, &whole[..length]).unwrap();
        let said = refused(&damaged);
        assert!(said.contains("not a complete safetensors file"), "{said}");
    }
    // The magic number that `torch.save` wrote before PyTorch 1.6, pickled.
    std::fs::write(
        &damaged,
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.",
    )
    .unwrap();
    let said = refused(&damaged);
    assert!(said.contains("before PyTorch 1.6"), "{said}");
    std::fs::write(&damaged, b"").unwrap();
    let said = refused(&damaged);
    assert!(said.contains("neither a complete PyTorch checkpoint"), "{said}");
}
