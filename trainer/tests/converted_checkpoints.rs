//! Checkpoints in other forms, by the program itself: back in the authors' layout, and locally connected.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use model::checkpoint::{f32_values, open_tensors};
use model::{Checkpoint, Connectivity};
use support::{Golden, from_authors};
use tch::{Device, Kind, Tensor};
use trainer::import::archive::TorchArchive;
use trainer::import::pickle::{Pickle, TensorReference, Value};
use trainer::network::TorchNetwork;
use trainer::recording::activations;

fn trainer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainer"))
        .args(arguments)
        .output()
        .unwrap()
}

fn run(arguments: &[&str]) -> String {
    let output = trainer(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refusal(arguments: &[&str]) -> String {
    let output = trainer(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A path in a folder, as an argument.
fn file(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn digest(path: &str) -> String {
    let checkpoint = Checkpoint::open(Path::new(path)).unwrap();
    checkpoint.verify().unwrap();
    checkpoint.digest().to_owned()
}

const GOLDEN: [(&str, &[&str]); 3] = [
    ("conv_resnet18_w4_s64", &["--input-size", "64"]),
    ("lc_resnet18_w2_s64", &[]),
    ("lc1conv_resnet_cifar_w4_s16", &[]),
];

#[test]
fn what_was_the_authors_is_the_authors_again() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options) in GOLDEN {
        let [first, authors, second] =
            ["first.safetensors", "authors.pt", "second.safetensors"].map(|name| file(folder.path(), name));
        let original = support::path(&format!("{name}.pt"));
        let import = |source: &str, output: &str| {
            let arguments: Vec<&str> = ["import", source, "--output", output]
                .into_iter()
                .chain(options.iter().copied())
                .collect();
            run(&arguments)
        };
        import(original.to_str().unwrap(), &first);
        run(&["convert", &first, &authors, "--to", "authors"]);
        import(&authors, &second);
        assert_eq!(digest(&first), digest(&second), "{name}");
        // What was known of its training is still known.
        let header = Checkpoint::open(Path::new(&second)).unwrap().header().clone();
        let original = TorchArchive::open(&original).unwrap();
        let epoch = original.pickle().entry(original.pickle().root(), "epoch");
        assert_eq!(
            epoch,
            Some(&Value::Integer(header.provenance["epoch"].as_i64().unwrap()))
        );

        // Every tensor is bit for bit the one that the authors' program wrote, in a storage of the same form.
        let converted = TorchArchive::open(Path::new(&authors)).unwrap();
        let (expected, found) = (state_dict(&original), state_dict(&converted));
        assert_eq!(
            expected.keys().collect::<Vec<_>>(),
            found.keys().collect::<Vec<_>>()
        );
        for (tensor, expected) in expected {
            let found = &found[&tensor];
            assert_eq!(found.shape, expected.shape, "{name}: {tensor}");
            assert_eq!(found.strides, expected.strides, "{name}: {tensor}");
            assert_eq!(
                converted.storage(found).unwrap(),
                original.storage(&expected).unwrap(),
                "{name}: {tensor}"
            );
        }
    }
}

fn state_dict(archive: &TorchArchive) -> BTreeMap<String, TensorReference> {
    let pickle = archive.pickle();
    tensors(pickle, pickle.entry(pickle.root(), "model_state_dict").unwrap())
}

fn tensors(pickle: &Pickle, dictionary: &Value) -> BTreeMap<String, TensorReference> {
    let Value::Dictionary(entries) = dictionary else {
        panic!("{dictionary:?}");
    };
    let entry = |&(key, value): &(usize, usize)| match (pickle.value(key), pickle.value(value)) {
        (Value::Text(name), Value::Tensor(tensor)) => (name.clone(), tensor.clone()),
        other => panic!("{other:?}"),
    };
    entries.iter().map(entry).collect()
}

/// Trains a small network on the images that the program carries.
fn train(output: &str, options: &[&str]) {
    let common = [
        "train",
        "--architecture",
        "resnet-cifar",
        "--blocks",
        "1,1",
        "--width",
        "2",
        "--epochs",
        "1",
        "--batch-size",
        "2000",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--output",
        output,
    ];
    let arguments: Vec<&str> = common.into_iter().chain(options.iter().copied()).collect();
    run(&arguments);
}

#[test]
fn the_optimizer_goes_home_too() {
    for moments in ["fp32", "bf16"] {
        let folder = tempfile::tempdir().unwrap();
        let [checkpoint, authors] = ["run.safetensors", "run.pt"].map(|name| file(folder.path(), name));
        train(
            &checkpoint,
            &[
                "--moments",
                moments,
                "--precision",
                "fp32",
                "--learning-rate",
                "0.004",
            ],
        );
        run(&["convert", &checkpoint, &authors, "--to", "authors"]);

        let archive = TorchArchive::open(Path::new(&authors)).unwrap();
        let pickle = archive.pickle();
        let entry = |value, key| pickle.entry(value, key).unwrap();
        assert_eq!(entry(pickle.root(), "epoch"), &Value::Integer(1));
        let optimizer = entry(pickle.root(), "optimizer_state_dict");
        let Value::Dictionary(state) = entry(optimizer, "state") else {
            panic!();
        };
        let network = Checkpoint::open(Path::new(&checkpoint))
            .unwrap()
            .network()
            .clone();
        let names: Vec<String> = network
            .tensors()
            .into_iter()
            .filter(|spec| spec.role == model::network::TensorRole::Parameter)
            .map(|spec| spec.name)
            .collect();
        assert_eq!(state.len(), names.len());
        let training = open_tensors(&folder.path().join("run.training.safetensors")).unwrap();
        let steps = 5; // of 2,000 images; there are 10,000
        for (index, &(key, value)) in state.iter().enumerate() {
            assert_eq!(pickle.value(key), &Value::Integer(index as i64));
            let found = tensors(pickle, pickle.value(value));
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                ["exp_avg", "exp_avg_sq", "step"]
            );
            assert_eq!(
                f32_values(archive.storage(&found["step"]).unwrap()).collect::<Vec<_>>(),
                [steps as f32]
            );
            for (moment, ours) in [("exp_avg", "first_moment"), ("exp_avg_sq", "second_moment")] {
                let reference = &found[moment];
                let bytes = archive.storage(reference).unwrap();
                let found = Tensor::from_data_size(bytes, &reference.shape, Kind::Float);
                let name = format!("{}.{ours}", names[index]);
                let view = training.tensor(&name).unwrap();
                let kind = if moments == "bf16" {
                    Kind::BFloat16
                } else {
                    Kind::Float
                };
                let shape: Vec<i64> = view.shape.iter().map(|&length| length as i64).collect();
                let expected = Tensor::from_data_size(view.bytes, &shape, kind).to_kind(Kind::Float);
                let found = if found.dim() == 6 {
                    from_authors(&found)
                } else {
                    found
                };
                assert!(
                    found.size() == expected.size() && found.equal(&expected),
                    "{name}"
                );
            }
        }
        let Value::Sequence(groups) = entry(optimizer, "param_groups") else {
            panic!();
        };
        let group = pickle.value(groups[0]);
        assert_eq!(entry(group, "initial_lr"), &Value::Float(0.004));
        let scheduler = entry(pickle.root(), "scheduler_state_dict");
        assert_eq!(entry(scheduler, "last_epoch"), &Value::Integer(1));
    }
}

#[test]
fn a_convolutional_network_becomes_a_locally_connected_one_that_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [conv, lc] = ["conv.safetensors", "lc.safetensors"].map(|name| file(folder.path(), name));
    let (name, options) = GOLDEN[0];
    let source = support::path(&format!("{name}.pt"));
    let import: Vec<&str> = ["import", source.to_str().unwrap(), "--output", &conv]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    run(&import);
    let images = Golden::open(&format!("{name}.activations.safetensors")).tensor("input");
    let computed = |path: &str| {
        let checkpoint = Checkpoint::open(Path::new(path)).unwrap();
        let network = TorchNetwork::load(&checkpoint, Device::Cpu).unwrap();
        activations(&network, &images).unwrap()
    };
    let expected = computed(&conv);
    for n_first_conv in [0, 3] {
        let count = n_first_conv.to_string();
        run(&["convert", &conv, &lc, "--to", "lc", "--n-first-conv", &count]);
        let checkpoint = Checkpoint::open(Path::new(&lc)).unwrap();
        checkpoint.verify().unwrap();
        let header = checkpoint.header();
        assert_eq!(
            header.architecture.connectivity,
            Connectivity::LocallyConnected { n_first_conv }
        );
        assert_eq!(header.provenance["converted_from"]["digest"], digest(&conv));
        let shared = checkpoint
            .network()
            .convolutions()
            .take_while(|geometry| !geometry.locally_connected)
            .count();
        assert_eq!(shared, n_first_conv);
        for ((layer, found), (_, expected)) in computed(&lc).iter().zip(&expected) {
            let error = support::relative_error(found, expected);
            assert!(
                error < 1e-5,
                "{layer} differs by {error:e} of its largest magnitude"
            );
        }
    }
    // A network that is partly locally connected becomes wholly so, and never the other way round.
    let whole = file(folder.path(), "whole.safetensors");
    run(&["convert", &lc, &whole, "--to", "lc"]);
    let again = file(folder.path(), "again.safetensors");
    let said = refusal(&["convert", &whole, &again, "--to", "lc", "--n-first-conv", "1"]);
    assert!(said.contains("`conv1` is locally connected already"), "{said}");
    let said = refusal(&["convert", &whole, &again, "--to", "lc"]);
    assert!(
        said.contains("all of them are locally connected already"),
        "{said}"
    );
    let said = refusal(&["convert", &conv, &again, "--to", "lc", "--n-first-conv", "100"]);
    assert!(said.contains("it has 20, and the first 100"), "{said}");
    assert!(!Path::new(&again).exists());
}

#[test]
fn training_starts_from_a_trained_convolutional_network() {
    let folder = tempfile::tempdir().unwrap();
    let [conv, converted, lc] =
        ["conv.safetensors", "converted.safetensors", "lc.safetensors"].map(|name| file(folder.path(), name));
    train(&conv, &["--connectivity", "conv", "--learning-rate", "0.01"]);
    run(&["convert", &conv, &converted, "--to", "lc"]);
    // A step of no length leaves the weights as they were.
    let still = [
        "--learning-rate",
        "0",
        "--weight-decay",
        "0",
        "--precision",
        "fp32",
    ];
    let from: Vec<&str> = still.into_iter().chain(["--start-from", &conv]).collect();
    train(&lc, &from);
    let [expected, found] = [&converted, &lc].map(|path| Checkpoint::open(Path::new(path)).unwrap());
    assert_eq!(
        expected.header().architecture.connectivity,
        found.header().architecture.connectivity
    );
    assert_eq!(
        found.header().provenance["initialisation"]["from"],
        "conv.safetensors"
    );
    for (name, _) in open_tensors(Path::new(&lc)).unwrap().tensors() {
        if !name.contains("running") && !name.contains("batches") {
            let [expected, found] =
                [&expected, &found].map(|checkpoint| checkpoint.tensor(name).unwrap().bytes);
            assert!(expected == found, "{name}");
        }
    }
    // Another network can't start so, nor a convolutional one from kernels that differ.
    let output = file(folder.path(), "other.safetensors");
    let refused = |options: &[&str]| {
        let common = [
            "train",
            "--architecture",
            "resnet-cifar",
            "--blocks",
            "1,1",
            "--width",
            "2",
            "--device",
            "cpu",
            "--output",
            &output,
        ];
        let arguments: Vec<&str> = common.into_iter().chain(options.iter().copied()).collect();
        refusal(&arguments)
    };
    let said = refused(&["--start-from", &conv, "--n-first-conv", "1", "--input-size", "32"]);
    assert!(said.contains("its input is 1x28x28, wanted is 1x32x32"), "{said}");
    let said = refused(&["--start-from", &lc, "--connectivity", "conv"]);
    assert!(
        said.contains("its connectivity is locally connected, wanted is convolutional"),
        "{said}"
    );
    assert!(!Path::new(&output).exists());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = file(folder.path(), "one.safetensors");
    let options = [
        "--architecture",
        "short-resnet",
        "--width",
        "2",
        "--input-size",
        "32",
        "--classes",
        "3",
    ];
    let init: Vec<&str> = ["init", "--output", &checkpoint]
        .into_iter()
        .chain(options)
        .collect();
    run(&init);
    let before = digest(&checkpoint);
    let said = refusal(&["convert", &checkpoint, &checkpoint, "--to", "lc"]);
    assert!(said.contains("would replace the checkpoint"), "{said}");
    let said = refusal(&[
        "convert",
        &checkpoint,
        &file(folder.path(), "a.safetensors"),
        "--to",
        "authors",
    ]);
    assert!(said.contains("call it NAME.pt"), "{said}");
    let said = refusal(&["convert", &checkpoint, &file(folder.path(), "a.pt"), "--to", "lc"]);
    assert!(said.contains("should end in .safetensors"), "{said}");
    let authors = file(folder.path(), "a.pt");
    let said = refusal(&[
        "convert",
        &checkpoint,
        &authors,
        "--to",
        "authors",
        "--n-first-conv",
        "1",
    ]);
    assert!(said.contains("--n-first-conv is for --to lc"), "{said}");
    let lost = file(folder.path(), "no/such/folder/a.pt");
    let said = refusal(&["convert", &checkpoint, &lost, "--to", "authors"]);
    assert!(said.contains("can't write"), "{said}");
    assert_eq!(digest(&checkpoint), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
