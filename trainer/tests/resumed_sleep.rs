//! A run with the anti-Hebbian sleep phase and moments of bfloat16 that is interrupted and resumed ends with the weights of one that wasn't.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use model::{Architecture, Checkpoint, CheckpointHeader, Connectivity, InputShape, Preprocessing};
use tch::Device;
use trainer::data::{Augmentation, DataSet, DataSetKind, Images};
use trainer::network::{Initialisation, TorchNetwork};
use trainer::precision::Precision;
use trainer::training::{
    AntiHebbian, CheckpointWriter, Log, MomentType, OptimizerOptions, Outcome, Schedule, SleepPhase, Trainer,
    TrainingOptions, TrainingState, open_for_resuming,
};

const INPUT: InputShape = InputShape {
    channels: 1,
    height: 12,
    width: 12,
};

fn options() -> TrainingOptions {
    TrainingOptions {
        epochs: 2,
        batch_size: 8,
        micro_batch: Some(5),
        optimizer: OptimizerOptions {
            moments: MomentType::Bf16,
            ..OptimizerOptions::default()
        },
        schedule: Schedule::default(),
        sleep_every: Some(2),
        sleep: SleepPhase::AntiHebbian(AntiHebbian {
            iterations: 20,
            batch_size: 64,
            ..AntiHebbian::default()
        }),
        seed: 3,
        precision: Precision::Fp32,
        augmentation: Augmentation::PaddedCrop {
            padding: 2,
            flip: true,
        },
    }
}

fn header() -> CheckpointHeader {
    let lc = Connectivity::LocallyConnected { n_first_conv: 0 };
    let mut architecture = Architecture::resnet_cifar(1, INPUT, 2, 3, lc);
    architecture.blocks = vec![1];
    CheckpointHeader {
        architecture,
        preprocessing: Preprocessing::unit_range(INPUT),
        class_names: ["a", "b", "c"].map(str::to_owned).to_vec(),
        provenance: BTreeMap::new(),
    }
}

fn images(count: usize) -> Images {
    let pixels = (0..count * 144).map(|pixel| (pixel * 7919 % 251) as u8).collect();
    let labels = (0..count).map(|image| (image % 3) as u8).collect();
    Images::new(pixels, labels, (1, 12, 12)).unwrap()
}

/// Ends those who wait for it, in a panic too.
struct Finished<'a>(&'a AtomicBool);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Trains to the end, or with `stop` until the log shows some steps.
fn train(path: &Path, resume: bool, stop: bool) -> Outcome {
    let data = DataSet {
        kind: DataSetKind::Idx,
        train: images(400).into(),
        validation: None,
        test: images(8).into(),
        class_names: vec![],
        source: String::new(),
    };
    let (header, options) = (header(), options());
    let (network, start) = if resume {
        let checkpoint = open_for_resuming(path).unwrap();
        let network = TorchNetwork::load(&checkpoint, Device::Cpu).unwrap();
        let state = TrainingState::load(path, &checkpoint, &network, &options).unwrap();
        (network, state)
    } else {
        tch::manual_seed(3);
        let network = header.architecture.network().unwrap();
        let network = TorchNetwork::initialise(network, Initialisation::Random, Device::Cpu).unwrap();
        let start = TrainingState::fresh(&network, &options).unwrap();
        (network, start)
    };
    let log = path.with_extension("jsonl");
    let mut lines = Log::open(&log, false).unwrap();
    let preprocessing = header.preprocessing.clone();
    let writer = CheckpointWriter::new(path, header, options);
    let interrupted = AtomicBool::new(false);
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _finished = Finished(&finished);
        if stop {
            scope.spawn(|| {
                while !finished.load(Ordering::Relaxed) {
                    if std::fs::read_to_string(&log).unwrap().lines().count() >= 3 {
                        interrupted.store(true, Ordering::Relaxed);
                    }
                    std::thread::yield_now();
                }
            });
        }
        let trainer = Trainer {
            network: &network,
            data: &data,
            preprocessing: &preprocessing,
            device: Device::Cpu,
            options,
            // A run may go on with another number of them.
            workers: if resume { 3 } else { 2 },
            skip_corrupt: false,
            recompute: false,
            checkpoint_every: 1,
            interrupted: &interrupted,
        };
        trainer.run(start, &writer, &mut lines).unwrap()
    })
}

#[test]
fn a_resumed_run_sleeps_as_an_uninterrupted_one() {
    // Bit for bit the same result needs the same number of threads.
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let uninterrupted = folder.path().join("uninterrupted.safetensors");
    assert!(matches!(
        train(&uninterrupted, false, false),
        Outcome::Finished(_)
    ));

    let resumed = folder.path().join("resumed.safetensors");
    // On a busy machine a run may end before anyone sees that it has begun; then it begins again.
    let interrupted = (0..100).any(|_| train(&resumed, false, true) == Outcome::Interrupted);
    assert!(interrupted);
    // Another state of libtorch's generator than an uninterrupted run would have.
    tch::manual_seed(99);
    assert!(matches!(train(&resumed, true, false), Outcome::Finished(_)));
    let digest = |path: &Path| Checkpoint::open(path).unwrap().digest().to_owned();
    assert_eq!(digest(&resumed), digest(&uninterrupted));
}
