//! A checkpoint in the layout of the authors' PyTorch implementation: what `torch.save` makes of the dictionary `epoch`,
//! `model_state_dict`, `optimizer_state_dict`, `scheduler_state_dict`. `torch.load(weights_only=True)` reads it.
//!
//! Locally connected weights become `[Cin, Cout, H_out, W_out, k, k]`, an input channel at a time on their way into the
//! file, so that gigabytes need little memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use half::bf16;
use model::checkpoint::{Dtype, TensorView, f32_values};
use model::network::TensorRole;
use model::{Checkpoint, Convolution};

use super::ConvertError;
use super::pickle::{Element, Tensor, Value, pickle};
use super::torch_archive::{self, Storage};
use crate::engine::Algorithm;
use crate::import::{authors_shape, row_major_strides};
use crate::training::{OptimizerOptions, SavedState};

/// What every drop of the learning rate multiplies it by.
const GAMMA: f64 = 0.25;

/// Writes a checkpoint in the authors' layout; with `state`, the optimiser goes on where it was.
///
/// # Errors
/// [`ConvertError`]; the file at `output` is then what it was before.
pub fn convert(
    checkpoint: &Checkpoint,
    state: Option<&SavedState>,
    output: &Path,
) -> Result<(), ConvertError> {
    let mut archive = Archive::default();
    let root = Value::Dictionary(vec![
        ("epoch".into(), Value::Integer(epochs(checkpoint, state))),
        ("model_state_dict".into(), archive.model(checkpoint)?),
        (
            "optimizer_state_dict".into(),
            archive.optimizer(checkpoint, state)?,
        ),
        ("scheduler_state_dict".into(), scheduler(state)),
    ]);
    let written = torch_archive::write(output, &pickle(&root), &archive.storages);
    written.map_err(|source| ConvertError::Write {
        path: output.into(),
        source,
    })
}

/// Epochs that the network was trained for: what the training state says, else what was imported, else 0.
fn epochs(checkpoint: &Checkpoint, state: Option<&SavedState>) -> i64 {
    let provenance = &checkpoint.header().provenance;
    let imported = || provenance.get("epoch").and_then(serde_json::Value::as_i64);
    let trained = || provenance.get("trained")?.get("epoch")?.as_i64();
    state
        .and_then(|state| i64::try_from(state.position.epoch).ok())
        .or_else(trained)
        .or_else(imported)
        .unwrap_or(0)
}

/// The storages of the tensors that have been described.
#[derive(Default)]
struct Archive<'a> {
    storages: Vec<Box<dyn Storage + 'a>>,
}

impl<'a> Archive<'a> {
    fn tensor(&mut self, element: Element, shape: Vec<usize>, storage: impl Storage + 'a) -> Value {
        let key = self.storages.len().to_string();
        self.storages.push(Box::new(storage));
        Value::Tensor(Tensor {
            element,
            key,
            strides: row_major_strides(&shape),
            shape,
        })
    }

    fn model(&mut self, checkpoint: &'a Checkpoint) -> Result<Value, ConvertError> {
        let local = local_layers(checkpoint);
        let mut entries = Vec::new();
        for spec in checkpoint.network().tensors() {
            let view = checkpoint.tensor(&spec.name)?;
            let element = match spec.role {
                TensorRole::BatchCount => Element::Long,
                TensorRole::Parameter | TensorRole::RunningStatistic => Element::Float,
            };
            let geometry = local.get(&spec.name).copied();
            let storage = Weights {
                view,
                geometry,
                release: Release::Checkpoint(checkpoint),
            };
            let shape = geometry.map_or(spec.shape, |geometry| authors_shape(geometry).to_vec());
            let tensor = self.tensor(element, shape, storage);
            entries.push((spec.name.as_str().into(), tensor));
        }
        Ok(Value::Ordered(entries))
    }

    fn optimizer(
        &mut self,
        checkpoint: &'a Checkpoint,
        state: Option<&'a SavedState>,
    ) -> Result<Value, ConvertError> {
        let local = local_layers(checkpoint);
        let specs = checkpoint.network().tensors();
        let parameters: Vec<_> = specs
            .into_iter()
            .filter(|spec| spec.role == TensorRole::Parameter)
            .collect();
        let mut remembered = Vec::new();
        for (index, spec) in parameters.iter().enumerate() {
            let Some(state) = state.filter(|state| state.steps > 0) else {
                break;
            };
            let mut entries = Vec::new();
            let names = state.options.optimizer.moment_names();
            if state.options.optimizer.algorithm != Algorithm::Sgd {
                let step = (state.steps as f32).to_le_bytes();
                entries.push(("step".into(), self.tensor(Element::Float, Vec::new(), Step(step))));
            }
            for &name in names {
                let geometry = local.get(&spec.name).copied();
                let storage = Weights {
                    view: state.tensor(&format!("{}.{name}", spec.name))?,
                    geometry,
                    release: Release::State(state),
                };
                let shape =
                    geometry.map_or_else(|| spec.shape.clone(), |geometry| authors_shape(geometry).to_vec());
                let tensor = self.tensor(Element::Float, shape, storage);
                entries.push((torch_name(name).into(), tensor));
            }
            if !entries.is_empty() {
                remembered.push((Value::count(index), Value::Dictionary(entries)));
            }
        }
        let group = group(state, parameters.len());
        Ok(Value::Dictionary(vec![
            ("state".into(), Value::Dictionary(remembered)),
            ("param_groups".into(), Value::List(vec![group])),
        ]))
    }
}

/// PyTorch's name of what the optimiser remembers of a parameter.
fn torch_name(moment: &'static str) -> &'static str {
    match moment {
        "first_moment" => "exp_avg",
        "second_moment" => "exp_avg_sq",
        "momentum" => "momentum_buffer",
        other => other,
    }
}

/// The optimiser's numbers, as PyTorch keeps them: those of the run, else its AdamW's.
fn group(state: Option<&SavedState>, parameters: usize) -> Value {
    let options = state.map_or_else(OptimizerOptions::default, |state| state.options.optimizer);
    let now = state.map_or(options.learning_rate, current_learning_rate);
    let common = [
        ("lr", Value::Float(now)),
        ("initial_lr", Value::Float(options.learning_rate)),
        ("weight_decay", Value::Float(options.weight_decay)),
        ("maximize", Value::Bool(false)),
        ("foreach", Value::None),
        ("differentiable", Value::Bool(false)),
        ("fused", Value::None),
    ];
    let own = match options.algorithm {
        Algorithm::Sgd => vec![
            ("momentum", Value::Float(options.momentum)),
            ("dampening", Value::Integer(0)),
            ("nesterov", Value::Bool(false)),
        ],
        Algorithm::AdamW | Algorithm::Adam => {
            let (first, second) = options.betas;
            let decoupled = options.algorithm == Algorithm::AdamW;
            vec![
                (
                    "betas",
                    Value::Tuple(vec![Value::Float(first), Value::Float(second)]),
                ),
                ("eps", Value::Float(options.epsilon)),
                ("amsgrad", Value::Bool(false)),
                ("capturable", Value::Bool(false)),
                ("decoupled_weight_decay", Value::Bool(decoupled)),
            ]
        }
    };
    let indices = (0..parameters).map(Value::count).collect();
    let parameters = ("params", Value::List(indices));
    let entries = common.into_iter().chain(own).chain([parameters]);
    Value::Dictionary(entries.map(|(name, value)| (name.into(), value)).collect())
}

/// The state of `MultiStepLR`, or of `CosineAnnealingLR` for a cosine; none where there is no training to go on with.
fn scheduler(state: Option<&SavedState>) -> Value {
    let Some(state) = state else {
        return Value::Dictionary(Vec::new());
    };
    let own = match state.options.schedule.drops(state.options.epochs) {
        Some(epochs) => {
            let mut drops = BTreeMap::new();
            for drop in epochs {
                *drops.entry(drop).or_insert(0) += 1;
            }
            let drops = drops
                .into_iter()
                .map(|(epoch, times)| (Value::count(epoch), Value::count(times)));
            [
                ("milestones", Value::Counter(drops.collect())),
                ("gamma", Value::Float(GAMMA)),
            ]
        }
        None => [
            ("T_max", Value::count(state.options.epochs)),
            ("eta_min", Value::Float(0.0)),
        ],
    };
    let epoch = state.position.epoch;
    let list = |value: f64| Value::List(vec![Value::Float(value)]);
    let common = [
        ("base_lrs", list(state.options.optimizer.learning_rate)),
        ("last_epoch", Value::count(epoch)),
        ("_step_count", Value::count(epoch + 1)),
        ("_is_initial", Value::Bool(false)),
        ("_get_lr_called_within_step", Value::Bool(false)),
        ("_last_lr", list(current_learning_rate(state))),
    ];
    let entries = own.into_iter().chain(common);
    Value::Dictionary(entries.map(|(name, value)| (name.into(), value)).collect())
}

fn current_learning_rate(state: &SavedState) -> f64 {
    let options = &state.options;
    options.optimizer.learning_rate * options.schedule.factor(state.position.epoch, options.epochs)
}

fn local_layers(checkpoint: &Checkpoint) -> BTreeMap<String, &Convolution> {
    let layers = checkpoint
        .network()
        .convolutions()
        .filter(|geometry| geometry.locally_connected);
    layers
        .map(|geometry| (geometry.weight_name(), geometry))
        .collect()
}

/// The optimiser's count of steps: one float32.
struct Step([u8; 4]);

impl Storage for Step {
    fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        output.write_all(&self.0)
    }

    fn length(&self) -> u64 {
        4
    }
}

/// Weights, buffers or moments in one of our files; bfloat16 becomes float32.
struct Weights<'a> {
    view: TensorView<'a>,
    /// Of a locally connected layer, whose weights are permuted.
    geometry: Option<&'a Convolution>,
    release: Release<'a>,
}

/// The file whose pages can be let go once a tensor is written.
enum Release<'a> {
    Checkpoint(&'a Checkpoint),
    State(&'a SavedState),
}

impl Weights<'_> {
    fn single(&self) -> bool {
        self.view.dtype != Dtype::BF16
    }

    /// Writes `[H, W, K, Cout]` as `[Cin, Cout, H, W, k, k]`, an input channel at a time.
    fn write_permuted(&self, geometry: &Convolution, output: &mut dyn Write) -> io::Result<()> {
        let (inputs, outputs) = (geometry.in_channels, geometry.out_channels);
        let window = geometry.kernel_size * geometry.kernel_size;
        let of_output = geometry.positions() * window;
        let width = if self.single() { 4 } else { 2 };
        let row = outputs * width;
        let mut channel = vec![0; outputs * of_output * 4];
        for input in 0..inputs {
            // Rows of one input channel, in the order of positions and offsets in the window.
            let rows = self.view.bytes.chunks_exact(row).skip(input).step_by(inputs);
            for (place, row) in rows.enumerate() {
                let mut put = |index: usize, element: [u8; 4]| {
                    let at = (index * of_output + place) * 4;
                    channel[at..at + 4].copy_from_slice(&element);
                };
                if self.single() {
                    for (index, value) in f32_values(row).enumerate() {
                        put(index, value.to_le_bytes());
                    }
                } else {
                    for (index, value) in bf16_values(row).enumerate() {
                        put(index, value.to_le_bytes());
                    }
                }
            }
            output.write_all(&channel)?;
        }
        Ok(())
    }
}

impl Storage for Weights<'_> {
    fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        match self.geometry {
            Some(geometry) => self.write_permuted(geometry, output)?,
            None if self.single() => output.write_all(self.view.bytes)?,
            None => {
                for value in bf16_values(self.view.bytes) {
                    output.write_all(&value.to_le_bytes())?;
                }
            }
        }
        match self.release {
            Release::Checkpoint(checkpoint) => checkpoint.release(self.view.bytes),
            Release::State(state) => state.release(self.view.bytes),
        }
        Ok(())
    }

    fn length(&self) -> u64 {
        let bytes = self.view.bytes.len() as u64;
        if self.single() { bytes } else { 2 * bytes }
    }
}

fn bf16_values(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    // `chunks_exact(2)` gives slices of 2 bytes only.
    let pairs = bytes.chunks_exact(2);
    pairs.map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32())
}
