//! The training loop's ends: a network that the last step ruined, and interruptions.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Architecture, CheckpointHeader, Connectivity, InputShape, Preprocessing};
use tch::{Device, no_grad};
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

/// When a run is interrupted.
#[derive(Clone, Copy, PartialEq)]
enum CtrlC {
    Never,
    AtOnce,
    /// When it says how well the first epoch's network classifies.
    AfterEvaluation,
}

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
    ctrl_c: CtrlC,
) -> Result<Outcome, TrainingError> {
    let data = DataSet {
        kind: DataSetKind::Idx,
        train: images().into(),
        validation: None,
        test: images().into(),
        class_names: vec![],
        source: String::new(),
    };
    let interrupted = Arc::new(AtomicBool::new(ctrl_c == CtrlC::AtOnce));
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
        interrupted: &interrupted,
    };
    // Every run has one: what is said first by a thread that has none is said to nobody later on.
    let flag = Arc::clone(&interrupted);
    let subscriber = tracing_subscriber::fmt().with_writer(move || {
        flag.fetch_or(ctrl_c == CtrlC::AfterEvaluation, Ordering::Relaxed);
        std::io::sink()
    });
    tracing::subscriber::with_default(subscriber.finish(), || trainer.run(start, &writer, &mut log))
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
    let error = train(&path, (&network, start), options, CtrlC::Never).unwrap_err();
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
fn an_interruption_replaces_no_checkpoint_by_a_ruined_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let options = options(1e-3);
    let network = network();
    // Before the step, and in the evaluation after it.
    for (step, at) in [(0, Some(1)), (1, None)] {
        let mut start = TrainingState::fresh(&network, &options).unwrap();
        start.position = Position { epoch: 1, step };
        let writer = CheckpointWriter::new(&path, header(), options);
        writer
            .write(&network, (&start.optimizer, None), start.position, None)
            .unwrap();
        let before = std::fs::read(&path).unwrap();
        let (_, weights) = network.store().parameters().last().unwrap();
        let good = weights.copy();
        // As a step leaves it whose loss is finite, but whose gradients aren't.
        let _ = no_grad(|| weights.narrow(0, 0, 1).fill_(f64::NAN));
        let error = train(&path, (&network, start), options, CtrlC::AtOnce).unwrap_err();
        assert!(
            matches!(error, TrainingError::NonFinite { epoch: 2, step, .. } if step == at),
            "{error}"
        );
        assert!(error.to_string().contains("run.safetensors"), "{error}");
        assert!(
            std::fs::read(&path).unwrap() == before,
            "the good checkpoint is gone"
        );
        no_grad(|| weights.shallow_clone().copy_(&good));
    }
}

#[test]
fn a_checkpoint_has_no_evaluation_of_earlier_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let options = options(1e-3);
    let network = network();
    let start = TrainingState::fresh(&network, &options).unwrap();
    let outcome = train(&path, (&network, start), options, CtrlC::AfterEvaluation);
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    let checkpoint = open_for_resuming(&path).unwrap();
    let provenance = &checkpoint.header().provenance;
    assert_eq!(provenance["trained"]["epoch"], 1);
    assert_eq!(provenance.get("test"), None);
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
    let outcome = train(&path, (&drawn, start), options, CtrlC::AtOnce).unwrap();
    assert_eq!(outcome, Outcome::Interrupted);

    let checkpoint = open_for_resuming(&path).unwrap();
    let network = TorchNetwork::load(&checkpoint, Device::Cpu).unwrap();
    let state = TrainingState::load(&path, &checkpoint, &network, &options).unwrap();
    assert_eq!(state.position, reached);
    let outcome = train(&path, (&network, state), options, CtrlC::Never).unwrap();
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
