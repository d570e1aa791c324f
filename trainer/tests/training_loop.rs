//! The training loop's ends: a network that the last step ruined, and an evaluation that is interrupted.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use model::{Architecture, CheckpointHeader, Connectivity, InputShape, Preprocessing};
use tch::Device;
use trainer::data::{Augmentation, DataSet, DataSetKind, Images};
use trainer::network::{Initialisation, TorchNetwork};
use trainer::precision::Precision;
use trainer::training::{
    CheckpointWriter, Log, OptimizerOptions, Outcome, Position, Schedule, SleepPhase, Trainer, TrainingError,
    TrainingOptions, TrainingState, open_for_resuming,
};

const INPUT: InputShape = InputShape {
    channels: 1,
    height: 12,
    width: 12,
};

/// Two epochs of one step.
fn options(learning_rate: f64) -> TrainingOptions {
    TrainingOptions {
        epochs: 2,
        batch_size: 8,
        micro_batch: None,
        optimizer: OptimizerOptions {
            learning_rate,
            ..OptimizerOptions::default()
        },
        schedule: Schedule::Constant,
        sleep_every: None,
        sleep: SleepPhase::default(),
        seed: 3,
        precision: Precision::Fp32,
        augmentation: Augmentation::None,
    }
}

fn header() -> CheckpointHeader {
    let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
    let mut architecture = Architecture::resnet_cifar(1, INPUT, 2, 3, lc);
    architecture.blocks = vec![1];
    CheckpointHeader {
        architecture,
        preprocessing: Preprocessing::unit_range(INPUT),
        class_names: Vec::new(),
        provenance: BTreeMap::new(),
    }
}

fn images() -> Images {
    let pixels = (0..8 * 144).map(|pixel| (pixel * 7919 % 251) as u8).collect();
    let labels = (0..8).map(|image| image % 3).collect();
    Images::new(pixels, labels, (1, 12, 12)).unwrap()
}

fn network() -> TorchNetwork {
    tch::manual_seed(3);
    let network = header().architecture.network().unwrap();
    TorchNetwork::initialise(network, Initialisation::Random, Device::Cpu).unwrap()
}

fn train(
    path: &Path,
    (network, start): (&TorchNetwork, TrainingState),
    options: TrainingOptions,
    interrupted: bool,
) -> Result<Outcome, TrainingError> {
    let data = DataSet {
        kind: DataSetKind::Idx,
        train: images().into(),
        validation: None,
        test: images().into(),
        class_names: vec![],
        source: String::new(),
    };
    let mut log = Log::open(&path.with_extension("jsonl"), true).unwrap();
    let writer = CheckpointWriter::new(path, header(), options).resuming();
    let trainer = Trainer {
        network,
        data: &data,
        preprocessing: &header().preprocessing,
        device: Device::Cpu,
        options,
        workers: 1,
        skip_corrupt: false,
        recompute: false,
        checkpoint_every: 1,
        interrupted: &AtomicBool::new(interrupted),
    };
    trainer.run(start, &writer, &mut log)
}

#[test]
fn a_network_that_the_last_step_ruined_replaces_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    // The loss of the step is that before it, so that only the evaluation shows what the step did.
    let options = options(1e30);
    let network = network();
    let mut start = TrainingState::fresh(&network, &options).unwrap();
    start.position = Position { epoch: 1, step: 0 };
    let writer = CheckpointWriter::new(&path, header(), options);
    writer
        .write(&network, (&start.optimizer, None), start.position, None)
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = train(&path, (&network, start), options, false).unwrap_err();
    assert!(
        matches!(
            error,
            TrainingError::NonFinite {
                epoch: 2,
                step: None,
                ..
            }
        ),
        "{error}"
    );
    let said = error.to_string();
    assert!(
        said.contains("on the test images after epoch 2") && said.contains("run.safetensors"),
        "{said}"
    );
    assert!(
        std::fs::read(&path).unwrap() == before,
        "the good checkpoint is gone"
    );
}

#[test]
fn an_interrupted_evaluation_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let options = options(1e-3);
    let drawn = network();
    let mut start = TrainingState::fresh(&drawn, &options).unwrap();
    // All steps of the first epoch are made.
    let reached = Position { epoch: 0, step: 1 };
    start.position = reached;
    let outcome = train(&path, (&drawn, start), options, true).unwrap();
    assert_eq!(outcome, Outcome::Interrupted);

    let checkpoint = open_for_resuming(&path).unwrap();
    let network = TorchNetwork::load(&checkpoint, Device::Cpu).unwrap();
    let state = TrainingState::load(&path, &checkpoint, &network, &options).unwrap();
    assert_eq!(state.position, reached);
    let outcome = train(&path, (&network, state), options, false).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    let log = std::fs::read_to_string(path.with_extension("jsonl")).unwrap();
    let events: Vec<String> = log
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{} {}", line["event"].as_str().unwrap(), line["epoch"])
        })
        .collect();
    assert_eq!(events, ["epoch 1", "step 2", "epoch 2"]);
}
